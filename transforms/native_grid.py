"""From the network's grid back to the scan's own, without ever holding float class maps of native size.

The two grids are related by their affines alone: T = inv(A_model) · A_native takes native voxel indices to model ones.
Where T only permutes, mirrors and shifts by whole voxels (orientation, cropping), labels are copied. Otherwise the
class scores are interpolated linearly and reduced to labels slab by slab along the first native axis, so that memory
beyond the scores is classes × one slab. Native voxels outside the model grid (by over half a voxel) are background.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.label_scores import LabelScores, without_unsure
from rarevox.transforms.labels import values_from_classes

TOLERANCE = 1e-3
Lattice = tuple[list[int], list[int], list[int]]
"""For each native axis the model axis that it is, the sign, and the offset: model index = sign · native + offset."""
Watch = Callable[[torch.Tensor, "tuple[slice, ...]", "torch.Tensor | None"], None]
"""Called with class scores (C, …) on the native grid, where they lie, and which of them are inside the model grid."""


def labels_on_grid(
    scores: torch.Tensor,
    affine: np.ndarray,
    native_shape: Sequence[int],
    native_affine: np.ndarray,
    *,
    slab: int = 8,
    watch: Watch | None = None,
    weigh: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Class indices on the native grid.

    Args:
        scores: (C, X, Y, Z) class scores (logits or probabilities) on the model grid, or (1, X, Y, Z) class indices in
            an integer dtype.
        affine: 4×4, model voxel to mm.
        native_shape: size of the native grid.
        native_affine: 4×4, native voxel to mm.
        slab: native planes interpolated at once.
        watch: is shown the class scores on the native grid, in blocks that do not overlap; voxels outside the model
            grid may be left out. Class indices have no scores to show.
        weigh: makes of scores (C, …) those whose largest is the label (``DenseInferer.weighted``); None takes them as
            they are.

    Returns:
        uint8 (or int16) class indices of ``native_shape``, on the CPU.

    Raises:
        ValueError: integer class indices whose grid would need interpolation along an oblique axis.
    """
    lattice, shape = find_lattice(affine, native_affine), tuple(native_shape)
    if lattice is not None:
        whole = tuple(slice(0, n) for n in scores.shape[1:])
        if watch is not None and not _are_labels(scores):
            watch(*native_block(scores, whole, lattice, shape), None)
        labels, place = native_block(
            (scores if _are_labels(scores) else _argmax(scores, weigh)).cpu(), whole, lattice, shape
        )
        out = torch.zeros(shape, dtype=labels.dtype)
        out[place] = labels[0]
        return out
    if _are_labels(scores):
        raise ValueError("class indices cannot be interpolated onto another grid; ask the inferer for scores")
    transform = np.linalg.inv(np.asarray(affine, float)) @ np.asarray(native_affine, float)
    return _interpolate(scores, transform, shape, slab, watch, weigh or _as_they_are)


def _are_labels(scores: torch.Tensor) -> bool:
    return scores.shape[0] == 1 and not scores.is_floating_point()


def _as_they_are(scores: torch.Tensor) -> torch.Tensor:
    return scores


def _argmax(scores: torch.Tensor, weigh: Callable[[torch.Tensor], torch.Tensor] | None) -> torch.Tensor:
    """argmax over the classes as (1, …) in the smallest integer type, plane by plane (argmax itself gives int64)."""
    weigh = weigh or _as_they_are
    out = torch.empty(scores.shape[1:], dtype=torch.uint8 if scores.shape[0] <= 256 else torch.int16)
    for plane in range(scores.shape[1]):
        out[plane] = weigh(scores[:, plane]).argmax(0).to(out.dtype)
    return out[None]


def find_lattice(affine: np.ndarray, native_affine: np.ndarray) -> Lattice | None:
    """How native voxels are model voxels, or None where they lie between them."""
    transform = np.linalg.inv(np.asarray(affine, float)) @ np.asarray(native_affine, float)
    linear, shift = transform[:3, :3], transform[:3, 3]
    signs = np.rint(linear)
    if np.abs(linear - signs).max() > TOLERANCE or np.abs(shift - np.rint(shift)).max() > 0.05:
        return None
    if not (np.abs(signs).sum(0) == 1).all() or not (np.abs(signs).sum(1) == 1).all():
        return None
    axes = [int(np.flatnonzero(signs[:, native])[0]) for native in range(3)]
    return axes, [int(signs[a, n]) for n, a in enumerate(axes)], [int(np.rint(shift[a])) for a in axes]


def native_block(
    block: torch.Tensor, where: Sequence[slice], lattice: Lattice, native_shape: Sequence[int]
) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """A block (C, …) of the model grid as the native grid sees it, and its place there; what lies outside is cut off.

    Args:
        block: any values, on the model grid.
        where: the model voxels that it covers, with start and stop.
        lattice: of :func:`find_lattice`.
        native_shape: size of the native grid.

    Returns:
        A view of the block with its axes permuted and turned, and native slices; empty ones where nothing is inside.

    >>> values, place = native_block(torch.arange(4).reshape(1, 4, 1, 1), [slice(0, 4), slice(0, 1), slice(0, 1)],
    ...     ([0, 1, 2], [-1, 1, 1], [2, 0, 0]), (9, 1, 1))  # model = 2 − native: native 0, 1, 2 are model 2, 1, 0
    >>> values.ravel().tolist(), place[0]
    ([2, 1, 0], slice(0, 3, None))
    """
    axes, signs, offsets = lattice
    moved = block.permute(0, *(axis + 1 for axis in axes))
    target, flips = [], []
    for axis, (model, sign, offset) in enumerate(zip(axes, signs, offsets, strict=True)):
        start, stop = where[model].start, where[model].stop
        first = start - offset if sign > 0 else offset - stop + 1
        low = max(first, 0)
        high = max(min(first + stop - start, native_shape[axis]), low)
        target.append(slice(low, high))
        if sign < 0:
            flips.append(axis + 1)
        begin = low - first if sign > 0 else first + stop - start - high
        moved = moved.narrow(axis + 1, min(max(begin, 0), stop - start), high - low)
    return (moved.flip(flips) if flips else moved), tuple(target)


def _interpolate(
    scores: torch.Tensor,
    transform: np.ndarray,
    native_shape: tuple[int, ...],
    slab: int,
    watch: Watch | None,
    weigh: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
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
        out[begin : begin + len(x)] = (weigh(values).argmax(0) * inside).to(out.dtype).cpu()
        if watch is not None:
            watch(values, (slice(begin, begin + len(x)), *(slice(0, n) for n in native_shape[1:])), inside)
    return out


class LabelsOnNativeGridd(MapTransform):
    """Replace predictions in a data dictionary by label values on the grid of the file that the image came from.

    Args:
        keys: predictions: scores (C, X, Y, Z), or class indices (1, X, Y, Z), on the grid of ``image_key``.
        image_key: the preprocessed image, a MetaTensor whose meta still holds ``original_affine`` and
            ``spatial_shape`` of the file.
        values: the label value of each class.
        inferer: that made the scores, whose ``decision`` (:class:`rarevox.transforms.Decision`) says which label they
            give; None takes the largest score. Class indices are taken as they are.

    The result is a plain integer tensor (1, *native shape).
    """

    def __init__(
        self,
        keys: KeysCollection,
        values: Sequence[int],
        *,
        image_key: str = "image",
        allow_missing_keys: bool = False,
        inferer: Any = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.values = [int(value) for value in values]
        self.image_key = image_key
        self.inferer = inferer if getattr(inferer, "decision", None) else None
        self.watch: Watch | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring every prediction home; ``watch`` (an attribute, None by default) is shown scores on their way."""
        out = dict(data)
        image = out[self.image_key]
        native_affine = np.asarray(image.meta["original_affine"], float)
        native_shape = [int(n) for n in np.asarray(image.meta["spatial_shape"]).ravel()[:3]]
        for key in self.key_iterator(out):
            scores = out[key].as_tensor() if hasattr(out[key], "as_tensor") else out[key]
            out[key] = self._labels(scores, np.asarray(image.affine, float), native_shape, native_affine)[None]
        return out

    def _labels(
        self, scores: torch.Tensor, affine: np.ndarray, shape: Sequence[int], native_affine: np.ndarray
    ) -> torch.Tensor:
        """Label values on the native grid, by the inferer's decision where there is one."""
        if self.inferer is None or _are_labels(scores):
            classes = labels_on_grid(scores, affine, shape, native_affine, watch=self.watch)
            return values_from_classes(classes, self.values)
        inferer = self.inferer
        found = LabelScores(inferer.decision)
        found.begin(tuple(shape))

        def show(values: torch.Tensor, where: tuple[slice, ...], inside: torch.Tensor | None) -> None:
            if self.watch is not None:
                self.watch(values, where, inside)
            if found.decision.confidences:
                take_scores(found, inferer.log_probabilities, values, where, inside)

        classes = labels_on_grid(scores, affine, shape, native_affine, watch=show, weigh=inferer.weighted)
        values = values_from_classes(classes, self.values)
        sure = without_unsure(np.asarray(values), found, found.decision.confidences, self.values)
        return torch.from_numpy(sure)


def take_scores(
    found: LabelScores,
    log_probabilities: Callable[[torch.Tensor], torch.Tensor],
    scores: torch.Tensor,
    where: tuple[slice, ...],
    inside: torch.Tensor | None,
) -> None:
    """Show class scores (C, …) on the native grid to ``found``, plane by plane; outside there is no label."""
    for plane in range(scores.shape[1]):
        logs = log_probabilities(scores[:, plane : plane + 1])
        if inside is not None:
            logs[1:, ~inside[plane : plane + 1]] = -torch.inf
        first = where[0].start + plane
        found.take(logs, (slice(first, first + 1), *where[1:]))
