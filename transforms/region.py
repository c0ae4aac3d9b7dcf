"""Empty space around the anatomy is dropped before anything is computed on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, SpatialCrop

from rarevox.transforms.bounding_box import bounding_box


class CropToContentd(MapTransform):
    """Crop every key to the non-zero bounding box of one image; affines follow, so that results find their way back.

    A scan with no zero border, or of nothing but zeros, is left as it is. Foreground outside the box is lost to
    training (prepare warns of labels outside the image), and predictions there are background.

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
        box = bounding_box((np.asarray(source) != 0).any(0))
        if box is None:
            return out
        start = [max(span.start - self.margin, 0) for span in box]
        stop = [min(span.stop + self.margin, n) for span, n in zip(box, source.shape[1:], strict=True)]
        if start == [0] * len(start) and stop == list(source.shape[1:]):
            return out
        crop = SpatialCrop(roi_start=start, roi_end=stop)
        for key in self.key_iterator(out):
            out[key] = crop(out[key])
        return out
