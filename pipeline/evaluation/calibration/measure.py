"""Whether probabilities are frequencies: reliability curves and calibration errors of each structure, from bin sums.

For a structure, p is the probability that the network gives it in a voxel (of a union the sum over its labels), and
y is 1 where the reference has it. The voxels are counted in 15 bins of equal width over p; bin k holds n_k voxels, with
Σp, Σy and Σ(p − y)². From these sums, which add up over blocks, cases and processes:

* expected calibration error (ECE) = Σ_k |Σp − Σy| / Σ_k n_k: how far, on average over voxels, the probability is from
  the frequency;
* maximum calibration error (MCE) = max_k |Σp − Σy| / n_k over the bins that hold any voxel;
* Brier score = Σ(p − y)² / Σ n_k.

They are given for two sets of voxels. ``image``: all voxels of the scans. ``near``: all but those of the first bin
(p < 1/15) that lie farther than 10 mm, along any axis, from every voxel of the structure in the reference. What is left
out is the far background that the network rightly takes as such, 99.9 % of a scan with a rare structure, which makes
any ECE look small. Only the first bin differs between the two: choosing voxels by their reference alone would bend the
whole curve.

Source: Guo et al., On calibration of modern neural networks, ICML 2017; Naeini et al., AAAI 2015.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.evaluation.calibration.nearness import near_boxes
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures, foreground
from rarevox.transforms.reader import read_scan

BINS = 15
NEAR_MM = 10.0
REGIONS = ("image", "near")
SUMS = ("count", "probability", "reference", "squared_error")


class CaseCalibration:
    """Gather the bin sums of one case while its probabilities go by; a :class:`rarevox.pipeline.inference.watch.Watch`.

    Args:
        structures: name → label value, or the values whose union it is.
        label_values: the label value of each class, the background's first.
        reference: (X, Y, Z) labels on the scan's grid.
        spacing_mm: voxel edge lengths.
        ignored: the label of voxels that nobody annotated, which are not counted; None for none.

    Attributes:
        sums: (structures, 2 regions, 4 sums, bins) in the order of ``REGIONS`` and ``SUMS``. Voxels that were not shown
            are background by rule, p = 0.
    """

    def __init__(
        self,
        structures: Structures,
        label_values: Sequence[int],
        reference: np.ndarray,
        spacing_mm: Sequence[float],
        ignored: int | None = None,
    ) -> None:
        self.values = list(foreground(structures, MetricOptions()).values())
        order = {int(value): index for index, value in enumerate(label_values)}
        self.classes = [[order[value] for value in values] for values in self.values]
        self.reference, self.near = reference, near_boxes(reference, self.values, spacing_mm, NEAR_MM, ignored)
        self.ignored = ignored
        self.voxels = reference.size - (0 if ignored is None else int(np.count_nonzero(reference == ignored)))
        self.sums = np.zeros((len(self.values), len(REGIONS), len(SUMS), BINS))

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins: every voxel is background until it is shown.

        Raises:
            ValueError: the reference is on another grid.
        """
        if tuple(shape) != self.reference.shape:
            raise ValueError(f"the reference has {self.reference.shape} voxels and the scan {tuple(shape)}")
        self.sums[:] = 0
        for s, values in enumerate(self.values):
            has = float(sum(np.count_nonzero(self.reference == value) for value in values))
            for region, voxels in enumerate((self.voxels, self.near[s].count)):
                self.sums[s, region, :, 0] = voxels, 0.0, has, has

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Add a block."""
        probabilities, device = log_probabilities.exp(), log_probabilities.device
        reference = torch.from_numpy(np.ascontiguousarray(self.reference[where])).to(device)
        if self.ignored is not None:  # p = 0 adds nothing to what `begin` counted, and that leaves these voxels out
            probabilities = probabilities.masked_fill(reference == self.ignored, 0)
        for s, values in enumerate(self.values):
            has = reference == values[0]
            for value in values[1:]:
                has |= reference == value
            p = probabilities[self.classes[s]].sum(0) if len(values) > 1 else probabilities[self.classes[s][0]]
            close = self.near[s].block(where)
            near = None if close is None else torch.from_numpy(np.ascontiguousarray(close)).to(device)
            self.sums[s] += _block_sums(p, has, near)


def _block_sums(p: torch.Tensor, has: torch.Tensor, near: torch.Tensor | None) -> np.ndarray:
    """What a block adds to the sums, in place of its voxels as background: (regions, sums, bins).

    Most voxels fall into the first bin, so only the others are sorted into theirs.
    """
    out = np.zeros((len(REGIONS), len(SUMS), BINS))
    beyond = p >= 1.0 / BINS
    some = bool(beyond.any())
    if some:
        few, y = p[beyond].double(), has[beyond].double()
        bins = (few * BINS).long().clamp_(1, BINS - 1)
        for row, weights in enumerate((None, few, y, (few - y) ** 2)):
            out[:, row] = torch.bincount(bins, weights, minlength=BINS).double().cpu().numpy()
    has_all = float(has.sum())
    first = p.masked_fill(beyond, 0) if some else p
    missed = p[has & ~beyond].double() if has_all else p.new_zeros(0).double()
    for region in range(len(REGIONS)):
        size = float(p.numel())
        voxels = size - len(few) if some else size
        if region:
            if near is None:
                continue
            kept = first[near]
            size, first = float(near.sum()), kept
            voxels = size - float(beyond[near].sum()) if some else size
        squares = float((first * first).sum(dtype=torch.double))
        known = voxels - size, float(first.sum(dtype=torch.double)), len(missed) - has_all
        out[region, :3, 0] += known
        out[region, 3, 0] += squares - 2 * float(missed.sum()) + len(missed) - has_all
    return out


class Calibration:
    """Bin sums over the cases of an evaluation.

    Args:
        structures: name → label value or values.
        label_values: the label value of each class, the background's first.
        temperature: that the probabilities were made with; stated in the result.
        reference_key: entry of a case that holds the reference's file name.
        ignored: the label of voxels that nobody annotated, which are not counted; None for none.
    """

    def __init__(
        self,
        structures: Structures,
        label_values: Sequence[int],
        *,
        temperature: float | Sequence[float] = 1.0,
        reference_key: str = "reference",
        ignored: int | None = None,
    ) -> None:
        self.ignored = ignored
        self.structures, self.label_values, self.reference_key = structures, list(label_values), reference_key
        self.temperature, self.n_cases = temperature, 0
        self.sums = np.zeros((len(foreground(structures, MetricOptions())), len(REGIONS), len(SUMS), BINS))

    def watch(self, item: Mapping[str, Any]) -> CaseCalibration:
        """Who is to be shown the probabilities of a case.

        Raises:
            ScanError: the reference cannot be read.
        """
        labels, spacing_mm = read_reference(item[self.reference_key])
        return CaseCalibration(self.structures, self.label_values, labels, spacing_mm, self.ignored)

    def add(self, case: CaseCalibration) -> None:
        """Count a case that was segmented."""
        self.sums += case.sums
        self.n_cases += 1

    def result(self) -> dict[str, Any]:
        """The content of ``calibration`` in ``metrics.json``."""
        names = list(foreground(self.structures, MetricOptions()))
        return {
            "bins": BINS,
            "near_mm": NEAR_MM,
            "temperature": self.temperature,
            "n_cases": self.n_cases,
            "regions": {
                "image": "all voxels",
                "near": f"all but those with p < 1/{BINS} farther than {NEAR_MM:g} mm along an axis from the structure",
            },
            "structures": {
                name: {region: region_figures(sums) for region, sums in zip(REGIONS, self.sums[s], strict=True)}
                for s, name in enumerate(names)
            },
        }


def read_reference(path: str | Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """A reference's labels (X, Y, Z), a byte a voxel where they fit, and its spacing in mm.

    Raises:
        ScanError: it cannot be read.
    """
    scan = read_scan(path, dtype=None)
    labels = scan.array[0]
    labels = labels if labels.dtype.kind in "iu" else np.rint(labels)
    fits = labels.size == 0 or (labels.min() >= 0 and labels.max() <= 255)
    return labels.astype(np.uint8 if fits else np.int32, copy=False), scan.spacing_mm


def region_figures(sums: np.ndarray) -> dict[str, Any]:
    """The figures and the sums of one structure and region; figures of no voxel at all are NaN.

    Args:
        sums: (4, bins) in the order of ``SUMS``.

    Example, one of four voxels at p = 0.5 has the structure, and both at p = 0.9 do:
        >>> sums = np.zeros((4, 15)); sums[:, 7] = 4, 2.0, 1, 1.0; sums[:, 13] = 2, 1.8, 2, 0.02
        >>> found = region_figures(sums)
        >>> round(found["ece"], 6), found["mce"], found["brier"], found["voxels"]
        (0.2, 0.25, 0.17, 6)
    """
    count, probability, reference, squared = sums
    total, gaps = count.sum(), np.abs(probability - reference)
    held = count > 0
    figures = {"ece": math.nan, "mce": math.nan, "brier": math.nan, "voxels": int(total)}
    if total:
        mce = float((gaps[held] / count[held]).max())
        figures |= {"ece": float(gaps.sum() / total), "mce": mce, "brier": float(squared.sum() / total)}
    return figures | {name: [float(v) for v in row] for name, row in zip(SUMS, sums, strict=True)}


def add_calibrations(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The calibration of cases that were evaluated in parts, from the parts' results: sums of sums.

    Raises:
        ValueError: other structures, bins or temperatures.
    """
    first = parts[0]
    for part in parts[1:]:
        if any(part[key] != first[key] for key in ("bins", "near_mm", "temperature")) or set(part["structures"]) != set(
            first["structures"]
        ):
            raise ValueError("calibrations with other bins, regions, temperatures or structures do not add up")
    structures = {
        name: {
            region: region_figures(
                np.sum([[p["structures"][name][region][row] for row in SUMS] for p in parts], axis=0)
            )
            for region in REGIONS
        }
        for name in first["structures"]
    }
    return {**first, "n_cases": sum(part["n_cases"] for part in parts), "structures": structures}
