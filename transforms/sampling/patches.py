"""Training patches: an index of each case made once, then patches cut where a sampler says.

Which patches are drawn is the sampler's (:mod:`rarevox.transforms.sampling.samplers`); this module cuts them. Where a
patch reaches beyond the volume (border structures under valid convolutions, volumes smaller than the patch), it is
filled with zeros, which the loss sees only where the volume is smaller than the effective region or the sampler allows
overhang.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from rarevox.transforms.labels import is_ignored
from rarevox.transforms.sampling.content import content_of
from rarevox.transforms.sampling.patch_frame import PatchFrame
from rarevox.transforms.sampling.samplers import VOLUME, ClassBalancedSampler, PatchSampler

PARALLEL_SIZE = 32768
"""PyTorch divides copies of so many elements or more among its threads."""


def crop_padded(volume: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """The block of ``size`` from ``start`` of (C, *spatial), zeros where it leaves the volume; always a copy.

    >>> crop_padded(torch.tensor([[1, 2, 3]]), [-1], [3]).tolist()
    [[0, 1, 2]]
    """
    slices, padding = [slice(None)], []
    for s, p, n in zip(start, size, volume.shape[1:], strict=True):
        slices.append(slice(max(s, 0), max(min(s + p, n), 0)))
        padding.append((min(max(-s, 0), p), min(max(s + p - n, 0), p)))
    block = volume[tuple(slices)]
    flat = [side for pair in reversed(padding) for side in pair]
    return F.pad(block, flat) if any(flat) else block.clone()


def crop_into(out: torch.Tensor, volume: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
    """Fill ``out`` (C, *size) with the block from ``start`` of ``volume`` (C, *spatial), zeros where it leaves it.

    One copy, converting the type; of a memory-mapped volume only the block is read.

    >>> crop_into(torch.ones(1, 3), torch.tensor([[1, 2, 3]]), [-1]).tolist()
    [[0.0, 1.0, 2.0]]
    """
    source, target, whole = volume, out, True
    for axis, (s, p, n) in enumerate(zip(start, out.shape[1:], volume.shape[1:], strict=True), start=1):
        low, high = max(s, 0), max(min(s + p, n), 0)
        source = source.narrow(axis, low, max(high - low, 0)) if low < n else source.narrow(axis, 0, 0)
        target = target.narrow(axis, min(low - s, p), source.shape[axis])
        whole = whole and source.shape[axis] == p
    if not whole:
        out.zero_()
    _copy(target, source)
    return out


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy in this thread alone: on a busy machine, waiting for others takes 30 times as long as the patch itself."""
    if source.device.type != "cpu" or source.numel() < PARALLEL_SIZE or torch.get_num_threads() == 1:
        target.copy_(source)
        return
    step = max((PARALLEL_SIZE - 1) // source[:, :1].numel(), 1)
    for first in range(0, source.shape[1], step):
        target[:, first : first + step].copy_(source[:, first : first + step])


class IndexForegroundd(MapTransform):
    """Add what a sampler needs of a class-index map (1, *spatial) to the data, once for each cached case.

    Args:
        keys: the label map.
        sampler: as in :class:`RandForegroundPatchd`.
        patch_size: as there; needed by samplers whose index depends on it.
        margin: as there.
        index_key: where the index goes.
        image_key, mask_key: by which samplers that want it are told where the scan shows something; see
            :func:`rarevox.transforms.sampling.content.content_of`.

    Raises:
        ValueError: not exactly one key, or a sampler that needs ``patch_size`` without it.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        *,
        sampler: PatchSampler | None = None,
        patch_size: Sequence[int] | None = None,
        margin: int | Sequence[int] = 0,
        index_key: str = "foreground",
        image_key: str = "image",
        mask_key: str = "mask",
    ) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys are {self.keys}; expected the one label map to index")
        self.sampler = sampler or ClassBalancedSampler()
        self.frame = None if patch_size is None else PatchFrame.of(patch_size, margin)
        if self.frame is None and self.sampler.needs_frame:
            raise ValueError(f"{type(self.sampler).__name__} indexes patches of one size; give patch_size and margin")
        self.index_key = index_key
        self.image_key, self.mask_key = image_key, mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Index the label map.

        Voxels that nobody annotated (``IGNORED``) are no foreground. Where a case has such voxels and no foreground,
        its annotated voxels take the foreground's place, so that patches hold something to learn from. Content is what
        was annotated.
        """
        labels = np.asarray(data[self.keys[0]])[0]
        ignored = is_ignored(labels)
        if ignored.any():
            labels = np.where(ignored, 0, labels)
            labels = labels if labels.any() else (~ignored).astype(np.uint8)
        content = self._content(data) & ~ignored if self.sampler.wants_content else None
        return {**data, self.index_key: self.sampler.index_within(labels, self.frame, content)}

    def _content(self, data: Mapping[Hashable, Any]) -> np.ndarray:
        """Where the scan shows something: inside its mask, where it has one."""
        if data.get(self.mask_key) is not None:
            return np.asarray(data[self.mask_key])[0] > 0
        return content_of(np.asarray(data[self.image_key]))


class RandForegroundPatchd(Randomizable, MapTransform):
    """Draw one patch of every key where the sampler says.

    The patch's first voxel (which may lie before the volume) and the volume's size come along as ``patch_start`` and
    ``volume_size``, int64 tensors of one number an axis, so that training can tell what it has seen.

    Args:
        keys: volumes (C, *spatial) on one grid; plain tensors come out, without the MetaTensor's bookkeeping, since a
            patch is never written back.
        patch_size: input size, one an axis.
        margin: voxels from each face that the loss does not see, one an axis or one for all: the network's margin
            plus the loss margin.
        sampler: one of :mod:`rarevox.transforms.sampling.samplers`, the one that :class:`IndexForegroundd` has;
            class-balanced if None.
        index_key: where :class:`IndexForegroundd` left the index.

    Raises:
        ValueError: the margin leaves no effective region, or, at the first draw, the index is another sampler's.

    Example:
        >>> case = {"image": torch.rand(1, 9, 9), "label": torch.eye(9)[None]}
        >>> RandForegroundPatchd(["image", "label"], (4, 4))(IndexForegroundd()(case))["image"].shape
        torch.Size([1, 4, 4])
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        margin: int | Sequence[int] = 0,
        *,
        sampler: PatchSampler | None = None,
        index_key: str = "foreground",
    ) -> None:
        MapTransform.__init__(self, keys)
        self.frame = PatchFrame.of(patch_size, margin)
        self.sampler = sampler or ClassBalancedSampler()
        self.rule = self.sampler.rule(self.frame)
        self.index_key = index_key
        self.start: tuple[int, ...] = ()

    def randomize(self, data: Any) -> None:
        """Draw the start of the next patch from an index."""
        self.start = self.place(data, self.R)

    def place(self, data: Any, random: np.random.RandomState, number: int | None = None) -> tuple[int, ...]:
        """The start of a patch drawn from an index with the random numbers given, as draw ``number`` of a run."""
        if self.rule not in (VOLUME, data.rule):
            raise ValueError(
                f"{type(self.sampler).__name__} needs an index by {self.rule}; this case was indexed by {data.rule}: "
                "give IndexForegroundd the same sampler, patch_size and margin"
            )
        if number is None:
            return self.sampler.draw(data, self.frame, random)
        return self.sampler.draw_numbered(data, self.frame, random, number)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw and cut; the index is dropped from the result."""
        out = {key: value for key, value in data.items() if key != self.index_key}
        index = data[self.index_key]
        self.randomize(index)
        for key in self.key_iterator(out):
            volume = out[key]
            volume = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
            out[key] = crop_padded(volume, self.start, self.frame.size)
        return {**out, "patch_start": torch.tensor(self.start), "volume_size": torch.tensor(index.shape)}
