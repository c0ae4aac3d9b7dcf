"""Which channels a run can do without, and entries of data lists without some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.words import counted, listed
from rarevox.transforms.reading.stand_ins import MISSING


def optional_channels(config: Mapping[str, Any]) -> list[str]:
    """The channels that a scan may lack: where a run learnt with channel dropout, those that are not required.

    >>> optional_channels({"channels": ["FLAIR", "T1"], "channel_dropout": 0.25, "required_channels": ["FLAIR"]})
    ['T1']
    >>> optional_channels({"channels": ["FLAIR", "T1"]})
    []
    """
    required = config.get("required_channels") or []
    return [name for name in config["channels"] if name not in required] if config.get("channel_dropout") else []


def refusal(missing: Sequence[str], config: Mapping[str, Any]) -> str:
    """Why a run cannot do without channels; empty where it can."""
    channels, free = list(config["channels"]), optional_channels(config)
    unable = [name for name in missing if name not in free]
    if unable:
        how = "trained without channel_dropout" if not free else f"its required channels are {_others(channels, free)}"
        return f"the scan lacks {', '.join(unable)}, which the run needs ({how})"
    return "the scan has none of the channels" if missing and len(set(missing)) >= len(channels) else ""


def told_missing(names: Sequence[str]) -> str:
    """The warning of a scan that lacks channels.

    >>> told_missing(["T1"])
    'segmented without T1, which the scan lacks'
    """
    return f"segmented without {listed(names)}, which the scan lacks"


def require_channels(found: int, expected: int, channels: Sequence[str]) -> None:
    """Refuse a scan of another number of channels, as it was read or as it is after preprocessing.

    Args:
        found: its channels.
        expected: those that are wanted.
        channels: the names of those of a scan. A normalisation may make several of one, as several CT windows do.

    >>> require_channels(2, 1, ["CT"])
    Traceback (most recent call last):
    ...
    ValueError: the scan has 2 channels and the network takes 1 (CT); give a file with this one, no others
    """
    if found == expected:
        return
    how = "one file with these in this order, or a file each" if len(channels) > 1 else "a file with this one"
    there = counted(found, "channel") + (" after preprocessing" if len(channels) != expected else "")
    names = ", ".join(channels)
    raise ValueError(f"the scan has {there} and the network takes {expected} ({names}); give {how}, no others")


def _others(channels: Sequence[str], free: Sequence[str]) -> str:
    return ", ".join(name for name in channels if name not in free)


def without_channels(
    items: Sequence[Mapping[str, Any]], left_out: Sequence[str], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The entries as those of scans that lack some channels.

    Raises:
        RequestError: no such channel, or one that the run needs.
    """
    channels = list(config["channels"])
    for name in left_out:
        if name not in channels:
            raise RequestError(f"--without {name}: the run takes no channel of that name; {nearest(name, channels)}")
    reason = refusal(left_out, config)
    if reason:
        raise RequestError(f"--without {' '.join(left_out)}: {reason}")
    return [without(item, left_out, channels) for item in items] if left_out else [dict(item) for item in items]


def placed(items: Sequence[Mapping[str, Any]], there: Sequence[str], channels: Sequence[str]) -> list[dict[str, Any]]:
    """Entries of a dataset that lacks some of a run's channels: a file for each channel of the run, None for those.

    Args:
        items: of the dataset.
        there: its channels.
        channels: of the run.

    Raises:
        RequestError: an image of several channels in one file, which cannot be told apart by name.

    >>> placed([{"image": ["t.nii", "f.nii"]}], ["T1", "FLAIR"], ["FLAIR", "T2", "T1"])
    [{'image': ['f.nii', None, 't.nii']}]
    """
    found = []
    for item in items:
        files = item["image"] if isinstance(item["image"], list) else [item["image"]]
        if len(files) != len(there):
            raise RequestError(
                f"{files[0]} holds the channels {listed(there)} in one file, and the run takes {listed(channels)}; "
                "prepare the dataset from a file for each channel"
            )
        named = dict(zip(there, files, strict=True))
        found.append({**item, "image": [named.get(name) for name in channels]})
    return found


def without(item: Mapping[str, Any], left_out: Sequence[str], channels: Sequence[str]) -> dict[str, Any]:
    """An entry without channels; of an image with a file for each, without their files.

    >>> without({"image": ["f.nii", "t.nii"]}, ["T1"], ["FLAIR", "T1"])
    {'image': ['f.nii'], 'missing_channels': ['T1']}
    """
    files = item["image"]
    if isinstance(files, list) and len(files) == len(channels):
        files = [file for file, name in zip(files, channels, strict=True) if name not in left_out]
    return {**item, "image": files, MISSING: list(left_out)}
