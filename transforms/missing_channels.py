"""Scans that lack channels: 0 stands in for those after normalisation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.reading.stand_ins import MISSING


class ZeroMissingChannelsd(MapTransform):
    """Set the channels that an entry's ``missing_channels`` names to 0, as channel dropout does in training.

    It comes after the normalisation. The names go from the data into the image's metadata.

    Args:
        keys: images (C, *spatial).
        channels: the channels' names, in order.
    """

    def __init__(self, keys: KeysCollection, channels: Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = list(channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Zero them; a channel that the network does not know is a ValueError."""
        out = dict(data)
        missing = list(out.pop(MISSING, ()))
        if not missing:
            return out
        numbers = [self.channels.index(name) for name in missing]
        for key in self.key_iterator(out):
            image = out[key].clone() if isinstance(out[key], torch.Tensor) else out[key]
            for number in numbers:  # of each of several CT windows, where there are such
                image[number :: len(self.channels)] = 0
            if hasattr(image, "meta"):
                image.meta[MISSING] = "\n".join(missing)
            out[key] = image
        return out
