"""Which way a volume is cut into slices: the axis of the slices is brought to the end."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from rarevox.transforms.reading.geometry import spacing_mm

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis across which each kind of slices lies, in a volume whose axes run to the right, anterior and superior."""


def slice_order(spacing_mm: Sequence[float], axis: str = "auto") -> tuple[int, int, int]:
    """The axes of a RAS volume in the order that puts the one across the slices last.

    Args:
        spacing_mm: along right, anterior and superior.
        axis: ``sagittal``, ``coronal``, ``axial`` or ``auto``: the axis of the largest spacing, along which a scan was
            taken slice by slice; axial where none is larger (by over 1 %) than the axial one.

    Raises:
        ValueError: another name.

    >>> slice_order((1, 1, 3)), slice_order((1, 4, 1)), slice_order((1, 1, 1)), slice_order((1, 1, 3), "sagittal")
    ((0, 1, 2), (0, 2, 1), (0, 1, 2), (1, 2, 0))
    """
    if axis != "auto" and axis not in PLANES:
        raise ValueError(f"slice_axis is {axis!r}; expected auto, {', '.join(PLANES)} or null (no slices)")
    across = PLANES.get(axis, int(np.argmax(spacing_mm)))
    if axis == "auto" and spacing_mm[across] <= 1.01 * spacing_mm[2]:
        across = 2
    first, second = (a for a in range(3) if a != across)
    return first, second, across


class SlicesLastd(MapTransform):
    """Permute volumes so that their last axis runs across the slices; affines follow, so results find their way back.

    Args:
        keys: volumes (C, X, Y, Z) on one grid, axes to the right, anterior and superior; the first one that is there
            decides.
        axis: as in :func:`slice_order`.

    Raises:
        ValueError: another axis.
    """

    def __init__(self, keys: KeysCollection, axis: str = "auto", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        slice_order((1, 1, 1), axis)
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Permute every key; nothing is copied where the slices are last already."""
        out = dict(data)
        order: tuple[int, int, int] | None = None
        for key in self.key_iterator(out):
            volume = out[key]
            if order is None:
                spacing = spacing_mm(np.asarray(volume.affine, float))
                order = slice_order(spacing, self.axis)
            if order == (0, 1, 2):
                return out
            moved = volume.as_tensor().permute(0, *(axis + 1 for axis in order)).contiguous()
            meta = {name: value for name, value in volume.meta.items() if name != "affine"}
            out[key] = MetaTensor(moved, affine=volume.affine[:, [*order, 3]], meta=meta)
        return out
