"""Empty space in patches that came without a mask of the anatomy."""

from __future__ import annotations

import torch


def empty_space(images: torch.Tensor) -> torch.Tensor:
    """Where patches (R, C, *spatial) show nothing: flat blocks, whatever their value, and what continues them.

    A block is flat where a voxel equals all its face neighbours, in every channel; tissue never is. So are the air of a
    stripped scan and the zeros beyond its border, of one value or of two. Air with noise in it is not; only a mask of
    the anatomy tells it.

    >>> empty_space(torch.tensor([[[0.0, 0.0, 0.0, 3.0, -2.0, -2.0, -2.0]]])).tolist()
    [[True, True, True, False, True, True, True]]
    """
    axes = range(1, images.ndim - 1)
    alike = []
    for axis in axes:
        n = images.shape[axis + 1]
        alike.append((images.narrow(axis + 1, 1, n - 1) == images.narrow(axis + 1, 0, n - 1)).all(1))
    empty = torch.ones((len(images), *images.shape[2:]), dtype=torch.bool, device=images.device)
    for axis, same in zip(axes, alike, strict=True):
        _lower(empty, axis).logical_and_(same)
        _upper(empty, axis).logical_and_(same)
    # What has an equal neighbour in empty space is empty: the skin of a block, its edges, its corners.
    for _ in axes:
        for axis, same in zip(axes, alike, strict=True):
            before = empty.clone()
            _lower(empty, axis).logical_or_(_upper(before, axis) & same)
            _upper(empty, axis).logical_or_(_lower(before, axis) & same)
    return empty


def _lower(masks: torch.Tensor, axis: int) -> torch.Tensor:
    return masks.narrow(axis, 0, masks.shape[axis] - 1)


def _upper(masks: torch.Tensor, axis: int) -> torch.Tensor:
    return masks.narrow(axis, 1, masks.shape[axis] - 1)
