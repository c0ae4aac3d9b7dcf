"""Scans that lack channels: files stand in for them while the scan is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
