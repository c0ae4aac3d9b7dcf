"""The frame of the normalisations: which voxels count, channel by channel, and what becomes of the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.intensity.outcome import require_finite, said_of
from rarevox.transforms.intensity.tissue import common_tissue, left_out
from rarevox.transforms.told import tell

REGIONS = ("image", "nonzero", "common", "mask")
Change = Callable[[torch.Tensor], torch.Tensor]
"""Maps intensities to normalised ones; it may overwrite its argument."""


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without MetaTensor bookkeeping (which comparison results would carry along)."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def change_channels(
    image: torch.Tensor,
    inside: torch.Tensor | None,
    fit: Callable[[torch.Tensor, int], Change],
    *,
    keep_outside: bool = False,
) -> torch.Tensor:
    """Change every channel by what is fitted to its voxels inside; a channel without any is returned as zeros.

    What says nothing afterwards (no voxel inside, one value throughout, all but a few extreme voxels alike) is told by
    a line of the image's metadata, ``warnings``, where it has metadata.

    Args:
        image: (C, *spatial), any real dtype.
        inside: bool, (C, *spatial) or (1, *spatial); None means every voxel.
        fit: gets the float32 values inside, one axis, and the channel's number; returns the change.
        keep_outside: False sets the voxels outside to 0; True changes them too.

    Returns:
        float32 (C, *spatial), of the same class as ``image`` (a MetaTensor keeps its affine).

    Raises:
        NormalisationError: NaN or infinite voxels inside.
    """
    out = image.float().clone()
    told = []
    for channel in range(out.shape[0]):
        values = plain(out[channel])
        where = None if inside is None else inside[min(channel, inside.shape[0] - 1)]
        chosen = values.reshape(-1) if where is None else values[where]
        if chosen.numel() == 0:
            out[channel] = 0
            told.append(f"channel {channel + 1} has no voxel in the region of its normalisation")
            continue
        require_finite(chosen, channel)
        changed = fit(chosen, channel)(values)
        if where is not None and not keep_outside:
            changed[~where] = 0
        if changed.data_ptr() != values.data_ptr():
            out[channel] = changed
        told.append(said_of(changed, channel))
    tell(out, told)
    return out


class Normaliser(MapTransform):
    """Normalise images in a data dictionary inside a region; a subclass says how (:meth:`normalise`).

    Args:
        keys: the images, each (C, *spatial).
        region: ``image`` (every voxel), ``nonzero`` (voxels that are not 0, channel by channel), ``common`` (of these
            the ones in the tissue that all channels share, :func:`rarevox.transforms.common_tissue`) or ``mask``.
        mask_key: with ``mask``, the entry that holds the mask (1, *spatial), non-zero inside.
        keep_outside: change the voxels outside as well instead of setting them to 0.

    Raises:
        ValueError: an unknown region; KeyError when the mask is not in the data; NormalisationError: NaN or infinite
            voxels inside.
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

    @abstractmethod
    def normalise(self, image: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
        """Normalise one image (C, *spatial) by its voxels inside (None: all of them)."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by its normalised self."""
        out = dict(data)
        for key in self.key_iterator(out):
            image, inside = out[key], self.inside(out, out[key])
            out[key] = self.normalise(image, inside)
            if self.region == "common" and inside is not None:
                tell(out[key], [left_out(plain(image), inside)])
        return out

    def inside(self, data: Mapping[Hashable, Any], image: torch.Tensor) -> torch.Tensor | None:
        """The voxels of ``image`` that count, as a mask; None for all."""
        if self.region == "image":
            return None
        if self.region == "nonzero":
            return plain(image) != 0
        if self.region == "common":
            return (plain(image) != 0) & common_tissue(plain(image))
        if self.mask_key not in data:
            raise KeyError(
                f"normalisation inside a mask needs the entry {self.mask_key!r}, which this case lacks; "
                "prepare the dataset with --mask or choose region 'image', 'nonzero' or 'common'"
            )
        return plain(data[self.mask_key]) != 0
