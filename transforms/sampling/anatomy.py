"""A mask of the anatomy for every case: its own, or where its scan shows something."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.sampling.content import content_of


class AnatomyMaskd(MapTransform):
    """Give a case a mask (1, *spatial) uint8: 1 inside its own mask, or where its image shows something.

    Cut with the patch, it tells anatomy from empty space, and from what lies beyond the volume, which is 0.

    Args:
        keys: where the mask is and goes.
        image_key: the image (C, *spatial), which tells of a case without a mask
            (:func:`rarevox.transforms.sampling.content.content_of`).

    >>> case = {"image": torch.tensor([[-1.0, -1.0, 0.5, 2.0]])}
    >>> AnatomyMaskd()(case)["mask"].tolist()
    [[0, 0, 1, 1]]
    """

    def __init__(self, keys: KeysCollection = "mask", *, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mark it."""
        out = dict(data)
        for key in self.keys:
            if out.get(key) is not None:
                marked = np.asarray(out[key]) > 0
            else:
                marked = content_of(np.asarray(out[self.image_key]))[None]
            out[key] = torch.from_numpy(marked.astype(np.uint8))
        return out
