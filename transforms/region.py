"""Empty space around the anatomy is dropped before anything is computed on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, SpatialCrop


def content_box(image: torch.Tensor) -> tuple[list[int], list[int]]:
    """First and one-past-last index, per axis, of the voxels that are not 0 in some channel.

    Args:
        image: (C, *spatial).

    Returns:
        start and stop, one integer an axis; the whole image where every voxel is 0.

    Example:
        >>> content_box(torch.tensor([[0, 0, 5, 7, 0]]))
        ([2], [4])
    """
    filled = (image != 0).any(0)
    if not bool(filled.any()):
        return [0] * filled.ndim, list(filled.shape)
    start, stop = [], []
    for axis in range(filled.ndim):
        others = [a for a in range(filled.ndim) if a != axis]
        line = filled.amax(others) if others else filled
        where = torch.nonzero(line).flatten()
        start.append(int(where[0]))
        stop.append(int(where[-1]) + 1)
    return start, stop


class CropToContentd(MapTransform):
    """Crop every key to the non-zero bounding box of one image; affines follow, so that results find their way back.

    A scan with no zero border is left as it is. Foreground outside the box is lost to training (prepare warns of
    labels outside the image), and predictions there are background.

    Args:
        keys: what to crop, each (C, *spatial) on the same grid.
        source_key: the image that decides, before its normalisation.
        margin: voxels kept around the box.
    """

    def __init__(
        self, keys: KeysCollection, source_key: str = "image", *, margin: int = 0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if margin < 0:
            raise ValueError(f"margin is {margin}; expected 0 or more voxels")
        self.source_key = source_key
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop; nothing is copied where the box is the whole image."""
        out = dict(data)
        source = out[self.source_key]
        start, stop = content_box(source.as_tensor() if hasattr(source, "as_tensor") else source)
        start = [max(s - self.margin, 0) for s in start]
        stop = [min(s + self.margin, n) for s, n in zip(stop, source.shape[1:], strict=True)]
        if start == [0] * len(start) and stop == list(source.shape[1:]):
            return out
        crop = SpatialCrop(roi_start=start, roi_end=stop)
        for key in self.key_iterator(out):
            out[key] = crop(out[key])
        return out
