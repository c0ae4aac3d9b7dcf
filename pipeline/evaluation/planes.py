"""Where to look in a volume: anatomical axes, the part that matters, and slices with their size in millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

NAMES = {0: "sagittal", 1: "coronal", 2: "axial"}
LETTERS = {0: ("P", "A", "I", "S"), 1: ("L", "R", "I", "S"), 2: ("L", "R", "P", "A")}
MARGIN_MM = 15.0


@dataclass(frozen=True)
class Plane:
    """A slice of a RAS+ volume, cut to a box.

    Attributes:
        axis: the axis that it is perpendicular to.
        index: the voxel along that axis.
        box: the part of the volume that is shown.
        width_mm, height_mm: its size; the first remaining axis runs to the right, the second upwards.
    """

    axis: int
    index: int
    box: tuple[slice, ...]
    width_mm: float
    height_mm: float

    @property
    def name(self) -> str:
        """sagittal, coronal or axial."""
        return NAMES[self.axis]

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """The directions at the left, right, bottom and top edge (L left, R right, P posterior, A anterior, …)."""
        return LETTERS[self.axis]

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """The slice of a volume, (width, height)."""
        return volume[tuple(self.index if a == self.axis else s for a, s in enumerate(self.box))]


def plane(axis: int, index: int, box: tuple[slice, ...], spacing_mm: Sequence[float]) -> Plane:
    """The slice of ``box`` at ``index`` along ``axis``."""
    width, height = ((box[a].stop - box[a].start) * float(spacing_mm[a]) for a in range(3) if a != axis)
    return Plane(axis, index, box, width, height)


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


def focus(
    prediction: np.ndarray | None, reference: np.ndarray, spacing_mm: Sequence[float], structures: Mapping[str, Any]
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """The box around the structures (``MARGIN_MM`` wider) and along each axis the slice with the most disagreement.

    Without any disagreement it is the slice with the most of the reference; without structures the middle.

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
    if not wanted.any():
        return tuple(slice(0, n) for n in reference.shape), tuple(n // 2 for n in reference.shape)
    look, box, centre = (apart if apart.any() else wanted), [], []
    for axis in range(3):
        rest = tuple(a for a in range(3) if a != axis)
        inside = np.flatnonzero(wanted.any(axis=rest))
        margin = int(np.ceil(MARGIN_MM / float(spacing_mm[axis])))
        box.append(slice(max(int(inside[0]) - margin, 0), min(int(inside[-1]) + margin + 1, reference.shape[axis])))
        centre.append(int(np.argmax(look.sum(axis=rest))))
    return tuple(box), tuple(centre)


def label_mask(labels: np.ndarray, values: Any) -> np.ndarray:
    """Where ``labels`` is the value, or one of the values.

    >>> label_mask(np.array([0, 1, 2]), (1, 2)).tolist()
    [False, True, True]
    """
    return np.isin(labels, values) if isinstance(values, (list, tuple)) else labels == values
