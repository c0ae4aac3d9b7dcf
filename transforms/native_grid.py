"""From the network's grid back to the scan's own, without ever holding float class maps of native size.

The two grids are related by their affines alone: T = inv(A_model) · A_native takes native voxel indices to model ones.
Where T only permutes, mirrors and shifts by whole voxels (orientation, cropping), labels are copied. Otherwise the
class scores are interpolated linearly and reduced to labels slab by slab along the first native axis, so that memory
beyond the scores is classes × one slab. Native voxels outside the model grid (by over half a voxel) are background.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform

from transforms.labels import values_from_classes

TOLERANCE = 1e-3


def labels_on_grid(
    scores: torch.Tensor, affine: np.ndarray, native_shape: Sequence[int], native_affine: np.ndarray, *, slab: int = 8
) -> torch.Tensor:
    """Class indices on the native grid.

    Args:
        scores: (C, X, Y, Z) class scores (logits or probabilities) on the model grid, or (1, X, Y, Z) class indices in
            an integer dtype.
        affine: 4×4, model voxel to mm.
        native_shape: size of the native grid.
        native_affine: 4×4, native voxel to mm.
        slab: native planes interpolated at once.

    Returns:
        uint8 (or int16) class indices of ``native_shape``, on the CPU.

    Raises:
        ValueError: integer class indices whose grid would need interpolation along an oblique axis.
    """
    transform = np.linalg.inv(np.asarray(affine, float)) @ np.asarray(native_affine, float)
    lattice = _lattice(transform)
    if lattice is not None:
        labels = scores if _are_labels(scores) else _argmax(scores)
        return _copy(labels[0].cpu(), *lattice, tuple(native_shape))
    if _are_labels(scores):
        raise ValueError("class indices cannot be interpolated onto another grid; ask the inferer for scores")
    return _interpolate(scores, transform, tuple(native_shape), slab)


def _are_labels(scores: torch.Tensor) -> bool:
    return scores.shape[0] == 1 and not scores.is_floating_point()


def _argmax(scores: torch.Tensor) -> torch.Tensor:
    """argmax over the classes as (1, …) in the smallest integer type, plane by plane (argmax itself gives int64)."""
    out = torch.empty(scores.shape[1:], dtype=torch.uint8 if scores.shape[0] <= 256 else torch.int16)
    for plane in range(scores.shape[1]):
        out[plane] = scores[:, plane].argmax(0).to(out.dtype)
    return out[None]


def _lattice(transform: np.ndarray) -> tuple[list[int], list[int], list[int]] | None:
    """(model axis, sign, offset) for each native axis if the transform maps voxels to voxels, else None."""
    linear, shift = transform[:3, :3], transform[:3, 3]
    signs = np.rint(linear)
    if np.abs(linear - signs).max() > TOLERANCE or np.abs(shift - np.rint(shift)).max() > 0.05:
        return None
    if not (np.abs(signs).sum(0) == 1).all() or not (np.abs(signs).sum(1) == 1).all():
        return None
    axes = [int(np.flatnonzero(signs[:, native])[0]) for native in range(3)]
    return axes, [int(signs[a, n]) for n, a in enumerate(axes)], [int(np.rint(shift[a])) for a in axes]


def _copy(
    labels: torch.Tensor,
    axes: Sequence[int],
    signs: Sequence[int],
    offsets: Sequence[int],
    native_shape: tuple[int, ...],
) -> torch.Tensor:
    """Place model labels into a native volume of background: model index = sign · native index + offset."""
    moved = labels.permute(*axes)
    out = torch.zeros(native_shape, dtype=labels.dtype)
    target, flips = [], []
    for axis, (sign, offset) in enumerate(zip(signs, offsets, strict=True)):
        size = moved.shape[axis]
        first = -offset if sign > 0 else offset - size + 1
        low, high = max(first, 0), min(first + size, native_shape[axis])
        if high <= low:
            return out
        target.append(slice(low, high))
        if sign < 0:
            flips.append(axis)
        start = low - first if sign > 0 else size - (high - first)
        moved = moved.narrow(axis, start, high - low)
    out[tuple(target)] = moved.flip(flips) if flips else moved
    return out


def _interpolate(scores: torch.Tensor, transform: np.ndarray, native_shape: tuple[int, ...], slab: int) -> torch.Tensor:
    """argmax of linearly interpolated scores, a slab of native planes at a time."""
    out = torch.zeros(native_shape, dtype=torch.uint8 if scores.shape[0] <= 256 else torch.int16)
    matrix = torch.tensor(transform, dtype=torch.float32, device=scores.device)
    size = torch.tensor(scores.shape[1:], dtype=torch.float32, device=scores.device)
    y, z = (torch.arange(n, dtype=torch.float32, device=scores.device) for n in native_shape[1:])
    source = scores[None].float() if scores.dtype == torch.float16 and scores.device.type == "cpu" else scores[None]
    for begin in range(0, native_shape[0], slab):
        x = torch.arange(begin, min(begin + slab, native_shape[0]), dtype=torch.float32, device=scores.device)
        native = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1)
        model = native @ matrix[:3, :3].T + matrix[:3, 3]
        inside = ((model > -0.5 - TOLERANCE) & (model < size - 0.5 + TOLERANCE)).all(-1)
        grid = ((2 * model + 1) / size - 1).flip(-1)[None].to(source.dtype)
        values = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
        out[begin : begin + len(x)] = (values.argmax(0) * inside).to(out.dtype).cpu()
    return out


class LabelsOnNativeGridd(MapTransform):
    """Replace predictions in a data dictionary by label values on the grid of the file that the image came from.

    Args:
        keys: predictions: scores (C, X, Y, Z), or class indices (1, X, Y, Z), on the grid of ``image_key``.
        image_key: the preprocessed image, a MetaTensor whose meta still holds ``original_affine`` and
            ``spatial_shape`` of the file.
        values: the label value of each class.

    The result is a plain integer tensor (1, *native shape).
    """

    def __init__(
        self, keys: KeysCollection, values: Sequence[int], *, image_key: str = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.values = [int(value) for value in values]
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring every prediction home."""
        out = dict(data)
        image = out[self.image_key]
        native_affine = np.asarray(image.meta["original_affine"], float)
        native_shape = [int(n) for n in np.asarray(image.meta["spatial_shape"]).ravel()[:3]]
        for key in self.key_iterator(out):
            scores = out[key].as_tensor() if hasattr(out[key], "as_tensor") else out[key]
            classes = labels_on_grid(scores, np.asarray(image.affine, float), native_shape, native_affine)
            out[key] = values_from_classes(classes, self.values)[None]
        return out
