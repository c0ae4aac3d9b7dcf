"""Runs that earlier versions wrote, read as today's would be written: names that moved, settings that came later."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.trust.vocabulary import CONFIGS, MARKS, TARGET, vocabulary, walk

_OURS = "rarevox."


def brought_up(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """A run's configuration with the names and entries of today.

    Args:
        config: as it was read; nothing of it has been checked.
        stage: ``train``, ``evaluate`` or ``inference``. A training that goes on needs what came later: what its stages
            share, and settings, which leave off what the run did not know.

    >>> before = "rarevox.pipeline.device.select_device"
    >>> brought_up({"device": {"_target_": before, "name": "cpu"}}, "inference")
    {'device': {'_target_': 'rarevox.pipeline.select_device', 'name': 'cpu'}}
    """
    found = {key: _renamed(value) for key, value in config.items()}
    if stage != "train" or "structures" not in found:
        return found
    later = {key: value for key, value in read_yaml(CONFIGS / "common.yaml").items() if key not in found}
    settings = read_yaml(CONFIGS / "train.yaml").items()
    return found | later | {key: value for key, value in settings if key not in found and _is_plain(value)}


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _face_of(one) if key == TARGET else _renamed(one) for key, one in value.items()}


def _face_of(target: object) -> object:
    """What configurations name today where they named the module: the one face above it that offers the name."""
    if not isinstance(target, str) or not target.startswith(_OURS) or target in _targets():
        return target
    place, _, name = target.rpartition(".")
    above = [one for one in _targets() if one.endswith(f".{name}") and place.startswith(f"{one.rpartition('.')[0]}.")]
    return above[0] if len(above) == 1 else target


@lru_cache(maxsize=1)
def _targets() -> frozenset[str]:
    """All that our own configurations build of this package."""
    return frozenset(one for entry in vocabulary().entries.values() for one in entry.targets if one.startswith(_OURS))


def _is_plain(value: object) -> bool:
    return not any(
        (isinstance(part, dict) and TARGET in part) or (isinstance(part, str) and part.startswith(MARKS))
        for part in walk(value)
    )
