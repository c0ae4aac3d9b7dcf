"""NaN around the head, as some tools leave it where a scan was moved or masked, made the 0 that it stands for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.told import tell

CORNERS = 5
"""NaN is the surround where it fills so many of a volume's eight corners."""


class FillSurroundd(MapTransform):
    """Set the NaN voxels of an image to 0 where they are its surround, as ``rarevox prepare --fix`` does.

    They are where nothing is infinite and NaN fills five of the eight corners of every channel that has any. Any other
    image is passed on as it is. What was done is told (:mod:`rarevox.transforms.told`).

    Args:
        keys: images (C, X, Y, Z).
        allow_missing_keys: as in MONAI.

    Example:
        >>> image = torch.ones(1, 3, 3, 3)
        >>> image[:, 0], image[:, 2] = torch.nan, torch.nan
        >>> float(FillSurroundd("image")({"image": image})["image"].sum())
        9.0
    """

    def __init__(self, keys: KeysCollection, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fill."""
        out = dict(data)
        for key in self.key_iterator(out):
            image = out[key]
            bad = torch.isnan(torch.as_tensor(image))
            if not bool(bad.any()) or not _is_surround(image, bad):
                continue
            out[key] = image.masked_fill(bad, 0)
            tell(
                out[key],
                [f"{int(bad.sum())} NaN voxels of the surround set to 0, as in the scans that were learnt from"],
            )
        return out


def _is_surround(image: torch.Tensor, bad: torch.Tensor) -> bool:
    if bool(torch.isinf(image).any()):
        return False
    x, y, z = (max(1, size - 1) for size in bad.shape[1:])
    corners = bad[:, ::x, ::y, ::z].flatten(1).sum(1)
    return bool((corners[bad.flatten(1).any(1)] >= CORNERS).all())
