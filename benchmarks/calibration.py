"""What calibration costs an evaluation: bin sums of class scores against torchmetrics on the same probabilities.

    python benchmarks/calibration.py                       240×240×155 voxels, 5 classes, 6 structures
    python benchmarks/calibration.py --shape 64 64 48      something small

CPU seconds of one thread for one case: reduction of the scores to labels alone, the bin sums (all regions and figures
of all structures, from the scores), and torchmetrics' expected calibration error of the same structures (from
probabilities that are given); and the largest difference between the errors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.evaluation.calibration.measure import BINS, Calibration, CaseCalibration
from rarevox.pipeline.inference.native_watch import NativeWatch
from rarevox.pipeline.inference.tiling.stitch import class_indices

STRUCTURES = {"a": 1, "b": 2, "c": 3, "d": 4, "core": (2, 3), "whole": (1, 2, 3, 4)}
VALUES = (0, 1, 2, 3, 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155), help="voxels of the case")
    shape = tuple(parser.parse_args().shape)
    torch.set_num_threads(1)
    scores, reference = made_case(shape)
    whole = tuple(slice(0, n) for n in shape)
    labels, _ = timed(lambda: class_indices(scores))
    near, case = timed(lambda: CaseCalibration(STRUCTURES, VALUES, reference, (1.0, 1.0, 1.0)))
    watch = NativeWatch(case, lambda s: torch.log_softmax(s, 0), shape, ([0, 1, 2], [1, 1, 1], [0, 0, 0]))
    watch.begin()
    sums, _ = timed(lambda: watch.take(scores, whole))
    pooled = Calibration(STRUCTURES, VALUES)
    pooled.add(case)
    ours = [figures["image"]["ece"] for figures in pooled.result()["structures"].values()]
    peer, theirs = timed(lambda: torchmetrics_errors(scores.softmax(0), reference))
    print(f"{shape[0]}×{shape[1]}×{shape[2]} voxels, {len(VALUES)} classes, {len(STRUCTURES)} structures, one thread")
    print(f"labels alone                        {labels:7.2f} s")
    print(f"bin sums, from the scores           {near + sums:7.2f} s  ({near:.2f} s of it to find what is near)")
    print(f"torchmetrics, from probabilities    {peer:7.2f} s  ({peer / (near + sums):.1f} times as long)")
    print(f"largest difference of the errors    {max(abs(a - b) for a, b in zip(ours, theirs, strict=True)):.1e}")


def made_case(shape: tuple[int, ...]) -> tuple[torch.Tensor, np.ndarray]:
    """Scores that agree with a reference of four nested and separate boxes but for noise."""
    reference = np.zeros(shape, np.uint8)
    for value, low, high in ((1, 0.25, 0.5), (2, 0.3, 0.45), (3, 0.35, 0.4), (4, 0.7, 0.72)):
        reference[tuple(slice(int(low * n), max(int(high * n), int(low * n) + 1)) for n in shape)] = value
    random = torch.Generator().manual_seed(0)
    scores = 1.5 * torch.randn((len(VALUES), *shape), generator=random)
    scores[0] += 8
    for value in VALUES[1:]:
        scores[value][torch.from_numpy(reference == value)] += 9
    return scores, reference


def torchmetrics_errors(probabilities: torch.Tensor, reference: np.ndarray) -> list[float]:
    """The expected calibration error of each structure over all voxels."""
    from torchmetrics.functional.classification import binary_calibration_error

    found = []
    for values in STRUCTURES.values():
        classes = list(values) if isinstance(values, tuple) else [values]
        target = torch.from_numpy(np.isin(reference, classes).astype(np.int64))
        p = probabilities[classes].sum(0).clamp_(0, 1)
        found.append(float(binary_calibration_error(p.ravel(), target.ravel(), n_bins=BINS)))
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


if __name__ == "__main__":
    main()
