"""Metrics against MONAI's (and surface-distance's, if installed) on the same label maps, in one run.

    python benchmarks/metrics.py                             # 5 cases of 240×240×155 with 5 labels
    python benchmarks/metrics.py --cases 100 --skip-surfaces
    python benchmarks/metrics.py --cases 1 --size 64 64 48
    python benchmarks/metrics.py --data DIR                  # also `rarevox score` on DIR/Task04_Hippocampus

Every line gives both times for all cases, their ratio and the largest difference between the two sets of figures. MONAI
is given one-hot maps made beforehand, so that the encoding is not in its time. Memory is that of a process of its own:
the peak of the resident set while one case is measured in full, over what it was with the two maps loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.metrics import DiceMetric, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows

COUNTS = MetricOptions(distances=False, lesions=False)
SURFACES = {kind: MetricOptions(lesions=False, surface=kind) for kind in ("voxels", "area")}


def make_case(seed: int, size: tuple[int, ...], labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs in a head-like ellipsoid, each label about 1 % of the volume, and a prediction that errs at their rim."""
    rng = np.random.default_rng(seed)
    coarse = [max(4, n // 8) for n in size]
    fields = [
        ndimage.zoom(ndimage.gaussian_filter(rng.normal(size=coarse), 1.2), np.divide(size, coarse), order=1)
        for _ in range(labels)
    ]
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    outside = sum(axis**2 for axis in axes) > 0.8**2
    for field in fields:
        field[outside] = -np.inf
    noise = 0.03 * ndimage.zoom(rng.normal(size=coarse), np.divide(size, coarse), order=1)
    maps = []
    for shift in (0.0, noise):
        labelled = np.zeros(size, np.uint8)
        for value, field in enumerate(fields, start=1):
            labelled[field + shift > np.quantile(field[::3, ::3, ::3], 0.99)] = value
        maps.append(labelled)
    return maps[1], maps[0]


def onehot(labels: np.ndarray, classes: int) -> torch.Tensor:
    """(1, C, X, Y, Z) float32, as DiceMetric takes it."""
    return torch.from_numpy(np.stack([labels == c for c in range(classes)])[None].astype(np.float32))


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def report(name: str, ours: float, theirs: float, difference: float) -> None:
    """One line."""
    times = f"rarevox {ours:8.3f} s   peer {theirs:8.3f} s   ratio {theirs / ours:6.1f}"
    print(f"{name:34} {times}   max diff {difference:.1e}")


def column(rows: list[list[dict]], name: str) -> np.ndarray:
    """(cases, structures) of one column."""
    return np.array([[row[name] for row in case] for case in rows], float)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=3, default=(240, 240, 155))
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.0, 1.0, 1.0))
    parser.add_argument("--skip-surfaces", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("RAREVOX_TEST_DATA"))
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    structures, spacing = {f"s{v}": v for v in range(1, args.labels + 1)}, tuple(args.spacing)
    if args.memory_only:
        print(json.dumps(peak_memory(*make_case(0, tuple(args.size), args.labels), spacing, structures)))
        return
    totals: dict[str, list[float]] = {}
    for seed in range(args.cases):
        prediction, reference = make_case(seed, tuple(args.size), args.labels)
        compare_counts(prediction, reference, spacing, structures, totals)
        if not args.skip_surfaces:
            compare_surfaces(prediction, reference, spacing, structures, totals)
    size = "×".join(map(str, args.size))
    print(f"{args.cases} cases of {size}, {args.labels} labels, torch {torch.get_num_threads()} threads")
    for name, (ours, theirs, difference) in totals.items():
        report(name, ours, theirs, difference)
    for name, peak in own_process_memory().items():
        print(f"{name:34} {peak:.2f} bytes a voxel beyond the maps")
    if args.data and (args.data / "Task04_Hippocampus").is_dir():
        score_hippocampus(args.data / "Task04_Hippocampus" / "labelsTr")


def score_hippocampus(references: Path) -> None:
    """The whole command, report included, on the task's label maps moved by one voxel against themselves."""
    with tempfile.TemporaryDirectory() as folder:
        moved, output = Path(folder) / "moved", Path(folder) / "score"
        moved.mkdir()
        files = sorted(path for path in references.glob("*.nii.gz") if not path.name.startswith("."))
        for path in files:
            labels = nib.load(path)
            array = np.roll(np.asanyarray(labels.dataobj), 1, 0)
            nib.save(nib.Nifti1Image(array, labels.affine, labels.header), moved / path.name)
        command = [
            sys.executable,
            "-m",
            "rarevox.pipeline.cli",
            "score",
            str(moved),
            str(references),
            "--output",
            str(output),
        ]
        seconds, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
        pages = (output / "report.html").stat().st_size / 1e6
    print(f"{f'rarevox score, {len(files)} hippocampi':34} {seconds:.1f} s with its report of {pages:.1f} MB")


def compare_counts(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple, structures: dict, totals: dict
) -> None:
    """Dice and counts against DiceMetric."""
    maps = [onehot(labels, len(structures) + 1) for labels in (prediction, reference)]
    metric = DiceMetric(include_background=False, reduction="none")
    ours, rows = timed(lambda: case_rows("a", prediction, reference, spacing, structures, options=COUNTS))
    theirs, peer = timed(lambda: metric(*maps))
    add(totals, "Dice and counts / DiceMetric", ours, theirs, column([rows], "dice") - np.asarray(peer))


def compare_surfaces(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple, structures: dict, totals: dict
) -> None:
    """HD95 and surface Dice against MONAI's two functions and against surface-distance."""
    masks = [torch.from_numpy(np.stack([m == v for v in structures.values()])[None]) for m in (prediction, reference)]
    for kind, options in SURFACES.items():
        ours, rows = timed(lambda o=options: case_rows("a", prediction, reference, spacing, structures, options=o))
        dice, hd95 = column([rows], "surface_dice_1mm"), column([rows], "hd95_mm")
        thresholds = [1.0] * len(structures)
        options_of_peer = {"include_background": True, "spacing": spacing}
        theirs, peer = timed(
            lambda k=kind, p=options_of_peer, t=thresholds: compute_surface_dice(
                *masks, t, use_subvoxels=k == "area", **p
            )
        )
        difference = dice - np.asarray(peer)
        if kind == "voxels":
            more, peer = timed(lambda p=options_of_peer: compute_hausdorff_distance(*masks, percentile=95, **p))
            theirs, difference = theirs + more, np.concatenate([difference, hd95 - np.asarray(peer)])
        add(totals, f"surfaces ({kind}) / MONAI", ours, theirs, difference)
        if kind == "area":
            compare_surface_distance(ours, dice, hd95, [m[0].numpy() for m in masks], spacing, totals)


def compare_surface_distance(
    ours: float, dice: np.ndarray, hd95: np.ndarray, masks: list, spacing: tuple, totals: dict
) -> None:
    """The same figures from DeepMind's package, if it is installed."""
    try:
        import surface_distance
    except ImportError:
        return

    def peer() -> list[tuple[float, float]]:
        figures = []
        for predicted, referenced in zip(*masks, strict=True):
            found = surface_distance.compute_surface_distances(referenced, predicted, spacing)
            near = surface_distance.compute_surface_dice_at_tolerance(found, 1.0)
            figures.append((near, surface_distance.compute_robust_hausdorff(found, 95)))
        return figures

    theirs, figures = timed(peer)
    add(totals, "surfaces (area) / surface-distance", ours, theirs, np.concatenate([dice, hd95]) - np.array(figures).T)


def add(totals: dict, name: str, ours: float, theirs: float, difference: np.ndarray) -> None:
    """Sum times over cases, keep the largest difference."""
    known = totals.setdefault(name, [0.0, 0.0, 0.0])
    known[0] += ours
    known[1] += theirs
    known[2] = max(known[2], float(np.nanmax(np.abs(difference))))


def own_process_memory() -> dict[str, float]:
    """``peak_memory`` of this benchmark's case in a new process, whose memory holds nothing else."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-only"]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def peak_memory(prediction: np.ndarray, reference: np.ndarray, spacing: tuple, structures: dict) -> dict[str, float]:
    """The peaks while one case is measured in full, in bytes a voxel: of NumPy's and Python's allocations, and (on
    Linux) of the resident set, which holds what SciPy's trees and queues take as well."""
    case_rows("a", prediction[:40], reference[:40], spacing, structures)  # libraries and tables are loaded
    peaks = {}
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what making the case has left behind is not to be used again unseen
        clear.write_text("5")  # the peak starts anew
        before = status("VmRSS")
        case_rows("a", prediction, reference, spacing, structures)
        peaks["peak resident memory"] = (status("VmHWM") - before) / prediction.size
    tracemalloc.start()
    case_rows("a", prediction, reference, spacing, structures)
    peaks["peak of array allocations"] = tracemalloc.get_traced_memory()[1] / prediction.size
    tracemalloc.stop()
    return peaks


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    main()
