"""Intensity normalisation over the whole image, its non-zero voxels or a mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

REGIONS = ("image", "nonzero", "mask")


def z_score(image: torch.Tensor, inside: torch.Tensor | None = None, *, keep_outside: bool = False) -> torch.Tensor:
    """Shift and scale every channel to mean 0 and standard deviation 1 over the voxels inside.

    Formula: (x − mean(x[inside])) / std(x[inside]), the standard deviation with n in the denominator; where it is 0
    (constant channel, one voxel) the channel is only shifted. A channel with no voxel inside is returned as zeros.

    Args:
        image: (C, *spatial), any real dtype; computed in float32 from float64 sums.
        inside: bool, (C, *spatial) or (1, *spatial); None means every voxel.
        keep_outside: False sets the voxels outside to 0, which is the mean of those inside; True transforms them too.

    Returns:
        float32 (C, *spatial), of the same class as ``image`` (a MetaTensor keeps its affine).

    Example:
        >>> z_score(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[True, True, False]])).tolist()
        [[-1.0, 1.0, 0.0]]
    """
    out = image.float().clone()
    for channel in range(out.shape[0]):
        values = out[channel]
        where = None if inside is None else inside[min(channel, inside.shape[0] - 1)]
        chosen = values if where is None else values[where]
        if chosen.numel() == 0:
            out[channel] = 0
            continue
        mean = chosen.mean(dtype=torch.float64)
        std = ((chosen - mean).square().mean(dtype=torch.float64)).sqrt()
        scale = 1.0 if float(std) == 0 else float(std)
        values.sub_(float(mean)).div_(scale)
        if where is not None and not keep_outside:
            values[~where] = 0
    return out


class ZScored(MapTransform):
    """z-score images in a data dictionary; the options of :func:`z_score` by name.

    Args:
        keys: the images, each (C, *spatial).
        region: ``image`` (every voxel), ``nonzero`` (voxels that are not 0, channel by channel) or ``mask``.
        mask_key: with ``mask``, the entry that holds the mask (1, *spatial), non-zero inside.
        keep_outside: transform the voxels outside as well instead of setting them to 0.

    Raises:
        ValueError: an unknown region; KeyError when the mask is not in the data.
    """

    def __init__(
        self,
        keys: KeysCollection,
        region: str = "image",
        *,
        mask_key: str = "mask",
        keep_outside: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if region not in REGIONS:
            raise ValueError(f"region is {region!r}; expected one of {', '.join(REGIONS)}")
        self.region = region
        self.mask_key = mask_key
        self.keep_outside = keep_outside

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by its normalised self."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = z_score(out[key], self._inside(out, out[key]), keep_outside=self.keep_outside)
        return out

    def _inside(self, data: Mapping[Hashable, Any], image: torch.Tensor) -> torch.Tensor | None:
        if self.region == "image":
            return None
        if self.region == "nonzero":
            return _plain(image) != 0
        if self.mask_key not in data:
            raise KeyError(
                f"normalisation inside a mask needs the entry {self.mask_key!r}, which this case lacks; "
                "prepare the dataset with --mask or choose region 'image' or 'nonzero'"
            )
        return _plain(data[self.mask_key]) != 0


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without MetaTensor bookkeeping (which comparison results would carry along)."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
