"""Training patches that hold foreground: an index of each case made once, then draws whose cost is independent of size.

A patch has an input size and, inside it, the effective region that the loss sees: the patch less ``margin`` voxels
from each face (what the network's valid convolutions lose, plus the loss margin). A draw

1. takes a class uniformly among those present in the case (so that a class of 50 voxels is drawn as often as one of
   50 000), then a voxel of that class uniformly;
2. places the patch uniformly among the positions whose effective region holds that voxel and lies in the volume.

Border voxels are thus drawn as often as inner ones. Where the input reaches beyond the volume (border structures under
valid convolutions, volumes smaller than the patch), it is filled with zeros, which the loss sees only where the volume
is smaller than the effective region. A case without any foreground gives uniformly placed patches.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable


@dataclass(frozen=True)
class ForegroundIndex:
    """Where each foreground class of one case lies.

    Attributes:
        shape: the volume's size, voxels.
        voxels: for every class present (background left out) its flat voxel indices, C order.
        classes: the class of each entry of ``voxels``.
    """

    shape: tuple[int, ...]
    voxels: tuple[np.ndarray, ...]
    classes: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray) -> ForegroundIndex:
        """Index a map of class indices (*spatial), 0 being background.

        >>> ForegroundIndex.of(np.array([[0, 2], [1, 2]])).classes
        (1, 2)
        """
        flat = np.ascontiguousarray(labels).ravel()
        where = np.flatnonzero(flat)
        found = flat[where]
        order = np.argsort(found, kind="stable")
        classes, first = np.unique(found[order], return_index=True)
        dtype = np.int32 if flat.size < 2**31 else np.int64
        groups = np.split(where[order].astype(dtype), first[1:]) if classes.size else []
        return cls(tuple(labels.shape), tuple(groups), tuple(int(c) for c in classes))


def start_range(voxel: int, size: int, patch: int, margin: int) -> tuple[int, int]:
    """First and last start of a patch, on one axis, whose effective region holds ``voxel`` and lies in the volume.

    With e = patch − 2·margin effective voxels in a volume of ``size``: start + margin ≤ voxel < start + margin + e and
    0 ≤ start + margin ≤ size − e (for e > size: the region holds the volume, size − e ≤ start + margin ≤ 0).

    >>> start_range(0, 10, 4, 0), start_range(9, 10, 4, 0), start_range(0, 10, 6, 1), start_range(1, 3, 8, 0)
    ((0, 0), (6, 6), (-1, -1), (-5, 0))
    """
    effective = patch - 2 * margin
    low, high = sorted((0, size - effective))
    return max(voxel - effective + 1, low) - margin, min(voxel, high) - margin


def draw_start(
    index: ForegroundIndex, patch_size: Sequence[int], margin: Sequence[int], random: np.random.RandomState
) -> tuple[int, ...]:
    """Draw where a patch starts (it may begin before the volume); the rule is the module's."""
    if index.classes:
        voxels = index.voxels[random.randint(len(index.classes))]
        centre = np.unravel_index(int(voxels[random.randint(voxels.size)]), index.shape)
        ranges = [
            start_range(int(v), n, p, m) for v, n, p, m in zip(centre, index.shape, patch_size, margin, strict=True)
        ]
    else:
        ranges = [tuple(np.sort((-m, n - p + m))) for n, p, m in zip(index.shape, patch_size, margin, strict=True)]
    return tuple(int(random.randint(low, high + 1)) for low, high in ranges)


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


class IndexForegroundd(MapTransform):
    """Add the :class:`ForegroundIndex` of a class-index map (1, *spatial) to the data, once for each cached case."""

    def __init__(self, keys: KeysCollection = "label", *, index_key: str = "foreground") -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys are {self.keys}; expected the one label map to index")
        self.index_key = index_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Index the label map."""
        labels = np.asarray(data[self.keys[0]])
        return {**data, self.index_key: ForegroundIndex.of(labels[0])}


class RandForegroundPatchd(Randomizable, MapTransform):
    """Draw one patch of every key by the rule of this module.

    Args:
        keys: volumes (C, *spatial) on one grid; plain tensors come out, without the MetaTensor's bookkeeping, since a
            patch is never written back.
        patch_size: input size, one an axis.
        margin: voxels from each face that the loss does not see, one an axis or one for all: the network's margin
            plus the loss margin.
        index_key: where :class:`IndexForegroundd` left the index.

    Raises:
        ValueError: the margin leaves no effective region.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        margin: int | Sequence[int] = 0,
        *,
        index_key: str = "foreground",
    ) -> None:
        MapTransform.__init__(self, keys)
        self.patch_size = tuple(int(p) for p in patch_size)
        self.margin = (margin,) * len(self.patch_size) if isinstance(margin, int) else tuple(int(m) for m in margin)
        if len(self.margin) != len(self.patch_size):
            raise ValueError(f"margin {self.margin} and patch_size {self.patch_size} differ in length")
        if any(p - 2 * m < 1 for p, m in zip(self.patch_size, self.margin, strict=True)):
            raise ValueError(
                f"patch_size {self.patch_size} less margin {self.margin} on both sides leaves nothing for the loss; "
                "enlarge the patch or reduce loss_margin"
            )
        self.index_key = index_key
        self.start: tuple[int, ...] = ()

    def randomize(self, data: ForegroundIndex) -> None:
        """Draw the start of the next patch."""
        self.start = draw_start(data, self.patch_size, self.margin, self.R)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw and cut; the index is dropped from the result."""
        out = {key: value for key, value in data.items() if key != self.index_key}
        self.randomize(data[self.index_key])
        for key in self.key_iterator(out):
            volume = out[key]
            volume = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
            out[key] = crop_padded(volume, self.start, self.patch_size)
        return out
