"""The training patch, fitted to the volumes of a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rarevox.networks import Geometry
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.form import fingerprint_rows
from rarevox.pipeline.data.spacing import along_ras
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.slices import slice_order


def median_size(dataset: Dataset, spacing: Sequence[float] | None, slice_axis: str | None = None) -> list[int] | None:
    """Median size of the dataset's volumes along R, A, S in voxels of the training grid; None where it is not known.

    With ``slice_axis`` (see :func:`rarevox.transforms.slices.slice_order`) the axis across the slices is last.
    """
    sizes = _sizes(dataset, spacing, slice_axis)
    return [max(round(size), 1) for size in np.median(sizes, axis=0)] if sizes else None


def require_useful_patch(
    dataset: Dataset,
    patch_size: Sequence[int],
    geometry: Geometry,
    spacing: Sequence[float] | None,
    slice_axis: str | None = None,
) -> None:
    """Refuse a patch most of which would be padding in every case: more than twice the largest volume, and than 128.

    Such a patch is a slip of the hand, and takes memory until there is none.

    Raises:
        RequestError: says along which axis, and what the largest volume takes.
    """
    sizes = _sizes(dataset, spacing, slice_axis)
    if not sizes or len(sizes[0]) != len(patch_size):
        return
    wholes = [max(math.ceil(size), 1) for size in np.max(sizes, axis=0)]
    needed = geometry.input_size(wholes)
    for axis, (asked, whole, most) in enumerate(zip(patch_size, wholes, needed, strict=True)):
        if asked > max(2 * most, 128):
            raise RequestError(
                f"patch_size {list(patch_size)}: {asked} voxels along axis {axis}, where no volume has more than "
                f"{whole}; the rest would be padding; take at most {most}"
            )


def _sizes(dataset: Dataset, spacing: Sequence[float] | None, slice_axis: str | None) -> list[list[float]]:
    """Of each volume, in voxels of the training grid; empty where they are not known."""
    sizes = []
    for along in map(_along_ras, fingerprint_rows(dataset.path) or []):
        grid = [own for _, own in along] if spacing is None else [float(t) for t in spacing]
        size = [n * own / t for (n, own), t in zip(along, grid, strict=True)]
        order = (0, 1, 2) if slice_axis is None else slice_order(grid, slice_axis)
        sizes.append([size[axis] for axis in order])
    return sizes


def slice_orders(dataset: Dataset, spacing: Sequence[float] | None, slice_axis: str) -> set[tuple[int, int, int]]:
    """In which orders the axes R, A, S of the dataset's volumes come with ``slice_axis``; see `median_size`."""
    cases = fingerprint_rows(dataset.path) if spacing is None else []
    grids = [[own for _, own in _along_ras(case)] for case in cases] or [list(spacing or (1.0, 1.0, 1.0))]
    return {slice_order([float(t) for t in grid], slice_axis) for grid in grids}


def _along_ras(case: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(voxels, spacing in mm) along the right, anterior and superior axis of a case's fingerprint row."""
    size, spacing = (along_ras(case["orientation"], case[key]) for key in ("size", "spacing_mm"))
    return list(zip(size, spacing, strict=True))


def plan_patch(
    dataset: Dataset,
    patch_size: Sequence[int],
    geometry: Geometry,
    loss_margin: int | Sequence[int],
    spacing: Sequence[float] | None,
    slice_axis: str | None = None,
) -> list[int]:
    """The patch to train on: the overlay's, reshaped to the volumes at about the same number of voxels.

    A patch is never larger than the median volume, rounded up to a size that the network takes (to the nearest one that
    runs fastest, where the network keeps the size): what lies outside would be padding. For such networks, voxels
    saved on short axes go to the long ones, so small crops such as 36×50×35 are trained on nearly whole. Valid
    convolutions keep the overlay's extent on the other axes. An
    axis along which the network sees no neighbours (across slices) never grows.
    """
    size = median_size(dataset, spacing, slice_axis)
    patch = [int(n) for n in patch_size]
    if size is None or len(size) != len(patch):
        return patch
    lost = [2 * m for m in geometry.unseen(loss_margin)]
    largest = _whole_volume(geometry, [n + extra for n, extra in zip(size, lost, strict=True)])
    fitted = [min(n, limit) for n, limit in zip(patch, largest, strict=True)]
    if any(lost):
        return fitted
    step = [math.lcm(m, p) for m, p in zip(geometry.multiple, geometry.preferred_multiple, strict=True)]
    budget = math.prod(patch)
    while True:
        room = [a for a in range(len(fitted)) if fitted[a] + step[a] <= largest[a] and geometry.receptive_field[a] > 1]
        room = [a for a in room if math.prod(fitted) // fitted[a] * (fitted[a] + step[a]) <= 1.05 * budget]
        if not room:
            return fitted
        axis = min(room, key=lambda a: fitted[a] / largest[a])
        fitted[axis] += step[axis]


def _whole_volume(geometry: Geometry, size: Sequence[int]) -> list[int]:
    """The patch that takes a volume as a whole, or nearly so where that runs faster.

    >>> _whole_volume(Geometry(receptive_field=(87, 87, 87), preferred_multiple=16), [35, 50, 9])
    [32, 48, 9]
    """
    if any(geometry.margin):
        return list(geometry.preferred_size(size))
    least = geometry.input_size(size)
    steps = [math.lcm(m, p) for m, p in zip(geometry.multiple, geometry.preferred_multiple, strict=True)]
    return [max(round(n / step), 1) * step if n >= step else n for n, step in zip(least, steps, strict=True)]
