"""Voxel edges along right, anterior and superior: those of a dataset, and whether a scan's are like them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from rarevox.pipeline.data.form import fingerprint_rows
from rarevox.transforms.reader import spacing_mm

GROSSLY = 2.0
"""A voxel edge beyond those of training by more than this factor is told of."""
Spans = Sequence[Sequence[float]]


def along_ras(orientation: str, values: Sequence[float]) -> tuple[float, ...]:
    """Figures per axis of the file, such as spacings, in the order right, anterior, superior.

    >>> along_ras("SLA", (3.0, 1.0, 2.0))
    (1.0, 2.0, 3.0)
    """
    order = [next(axis for axis, pair in enumerate(("RL", "AP", "SI")) if letter in pair) for letter in orientation]
    return tuple(values[order.index(axis)] for axis in range(3))


def seen_spacing(dataset: Path) -> list[list[float]] | None:
    """The shortest and the longest voxel edge along R, A, S of a dataset's cases, in mm; None where it does not say.

    Args:
        dataset: its ``dataset.json``.
    """
    edges = [along_ras(str(row["orientation"]), row["spacing_mm"]) for row in fingerprint_rows(dataset)]
    if not edges:
        return None
    return [[float(f"{min(axis):.4g}"), float(f"{max(axis):.4g}")] for axis in zip(*edges, strict=True)]


def lone_slice(shape: Sequence[int]) -> str:
    """Whether a scan is a single slice, which says nothing to a network on volumes; else nothing.

    >>> lone_slice((34, 52, 1)), lone_slice((34, 52, 2))
    ('the scan has one slice (34 × 52 × 1 voxels); the network works on volumes', '')
    """
    size = " × ".join(map(str, shape))
    return f"the scan has one slice ({size} voxels); the network works on volumes" if 1 in shape else ""


def unlike_spacing(affine: np.ndarray, seen: Spans, *, slices: bool = False) -> str:
    """Whether a scan's voxel edges lie beyond those of training by more than a factor of two; else nothing.

    Args:
        affine: 4×4, of the scan.
        seen: shortest and longest edge along R, A, S in mm.
        slices: the network sees slices alone: the longest edge, across them, does not count.

    >>> unlike_spacing(np.diag([0.7, 0.7, 6.5, 1.0]), [[1.0, 1.0]] * 3)
    'its voxels are 0.7 × 0.7 × 6.5 mm (R, A, S) and those of the training 1 × 1 × 1: it was not trained for such scans'
    >>> unlike_spacing(np.diag([0.7, 0.7, 1.9, 1.0]), [[1.0, 1.0]] * 3)
    ''
    """
    edges = along_ras("".join(nib.aff2axcodes(affine)), spacing_mm(affine))
    far = [not low / GROSSLY <= edge <= high * GROSSLY for edge, (low, high) in zip(edges, seen, strict=True)]
    if slices:
        far[int(np.argmax(edges))] = False
    if not any(far):
        return ""
    own = " × ".join(f"{edge:.3g}" for edge in edges)
    trained = " × ".join(f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}" for low, high in seen)
    return f"its voxels are {own} mm (R, A, S) and those of the training {trained}: it was not trained for such scans"
