"""Where to look in a volume: anatomical axes, and the part that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from rarevox.transforms.bounding_box import bounding_box

NAMES = {0: "sagittal", 1: "coronal", 2: "axial"}
LETTERS = {0: ("A", "P", "I", "S"), 1: ("R", "L", "I", "S"), 2: ("R", "L", "P", "A")}
"""By the axis that a plane is perpendicular to: what lies at its left, right, bottom and top edge. This is the view of
radiology, as from the patient's feet and front: the patient's right is on the left."""
MARGIN_MM = 15.0


def canonical(
    image: np.ndarray | None,
    prediction: np.ndarray | None,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    affine: np.ndarray | None,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray, tuple[float, ...]]:
    """The arrays with their axes in the order and direction closest to RAS+, and the spacing in that order."""
    if affine is None:
        return image, prediction, reference, tuple(spacing_mm)
    turn = nib.io_orientation(affine)
    order = np.argsort(turn[:, 0])
    turned = [None if a is None else nib.apply_orientation(a, turn) for a in (image, prediction, reference)]
    return turned[0], turned[1], turned[2], tuple(float(spacing_mm[axis]) for axis in order)  # type: ignore[return-value]


def to_native(shape: Sequence[int], affine: np.ndarray | None) -> np.ndarray:
    """4×4: from voxel indices in the volume that :func:`canonical` gives to those of the file.

    Args:
        shape: of the file's volume.
        affine: of the file; None is RAS+ already.

    The file's x runs to the left: index 0 of the turned volume is its last voxel.
        >>> to_native((5, 6, 7), np.diag([-1.0, 1.0, 1.0, 1.0]))[0].tolist()
        [-1.0, 0.0, 0.0, 4.0]
    """
    if affine is None:
        return np.eye(4)
    return np.asarray(nib.orientations.inv_ornt_aff(nib.io_orientation(affine), tuple(shape)), float)


def focus(
    prediction: np.ndarray | None, reference: np.ndarray, spacing_mm: Sequence[float], structures: Mapping[str, Any]
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """The box around the structures (``MARGIN_MM`` wider), and the voxel to look at first.

    Of the voxels that the two label differently it is the one whose three slices hold most of such voxels, in sum, so
    that every plane shows much of them and their common point is one. Without any it is such a voxel of the
    structures; without structures the middle.

    >>> reference = np.zeros((9, 9, 9), int)
    >>> reference[2:5, 4, 4] = 1
    >>> focus(None, reference, (10, 10, 10), {"s": 1})
    ((slice(0, 7, None), slice(2, 7, None), slice(2, 7, None)), (2, 4, 4))
    """
    wanted, apart = np.zeros(reference.shape, bool), np.zeros(reference.shape, bool)
    for values in structures.values():
        if values == 0:
            continue
        mask = label_mask(reference, values)
        other = label_mask(prediction, values) if prediction is not None else np.zeros_like(mask)
        wanted |= mask | other
        apart |= mask ^ other
    around = bounding_box(wanted)
    if around is None:
        return tuple(slice(0, n) for n in reference.shape), tuple(n // 2 for n in reference.shape)
    box = []
    for axis, span in enumerate(around):
        margin = int(np.ceil(MARGIN_MM / float(spacing_mm[axis])))
        box.append(slice(max(span.start - margin, 0), min(span.stop + margin, reference.shape[axis])))
    return tuple(box), _fullest(apart if apart.any() else wanted)


def _fullest(mask: np.ndarray) -> tuple[int, ...]:
    """Of the voxels of a mask that is not empty the first whose three slices hold most of them in sum."""
    counts = [np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    across = counts[1][:, None] + counts[2][None, :]
    best = [counts[0][x] + across[plane].max() if plane.any() else 0 for x, plane in enumerate(mask)]
    x = int(np.argmax(best))
    y, z = np.unravel_index(int(np.argmax(np.where(mask[x], across, 0))), across.shape)
    return x, int(y), int(z)


def label_mask(labels: np.ndarray, values: int | Sequence[int]) -> np.ndarray:
    """Where ``labels`` is the value, or one of the values.

    >>> label_mask(np.array([0, 1, 2]), (1, 2)).tolist()
    [False, True, True]
    """
    return np.isin(labels, values) if isinstance(values, (list, tuple)) else labels == values
