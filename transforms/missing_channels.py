"""Scans that lack channels: files stand in for them while the scan is read, and 0 after normalisation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

MISSING = "missing_channels"
"""The entry of a data list that names the channels that a scan lacks."""


def with_stand_ins(item: Mapping[str, Any], channels: Sequence[str]) -> dict[str, Any]:
    """An entry whose ``image`` has a file for every channel: where one is missing, the first that is there.

    An image in a single file holds all channels and stays so.

    >>> with_stand_ins({"image": ["t1.nii"], "missing_channels": ["FLAIR"]}, ["FLAIR", "T1"])["image"]
    ['t1.nii', 't1.nii']

    Raises:
        ValueError: the files are not those of the other channels.
    """
    missing, files = list(item.get(MISSING, ())), item["image"]
    if not missing or not isinstance(files, (list, tuple)):
        return dict(item)
    present = [name for name in channels if name not in missing]
    if not present or len(files) != len(present):
        raise ValueError(f"{len(files)} files for the channels {', '.join(present) or 'none'}")
    placed = dict(zip(present, files, strict=True))
    return {**item, "image": [placed.get(name, files[0]) for name in channels]}


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
            image[numbers] = 0
            if hasattr(image, "meta"):
                image.meta[MISSING] = ", ".join(missing)
            out[key] = image
        return out
