"""Values of a training configuration that must be plain numbers, looked at before anything is computed with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RequestError

LEAST = {"batch_size": 1, "workers": 0, "fold": 0, "seed": 0, "epoch_length": 1}
AXES = (0, 1, 2)


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse numbers that are none, too small, or too few; what is referred to or computed (``@``, ``$``) is left.

    Args:
        config: a training configuration.

    Raises:
        RequestError: names the key, its value and what was expected.

    >>> check_values({"batch_size": 2, "patch_size": [32, 32, 32], "spacing": None})
    """
    for key, value in config.items():
        expected = None if isinstance(value, str) and value[:1] in ("@", "$") else _expected(key, value)
        if expected is not None:
            raise RequestError(f"{key} is {value!r}; expected {expected}")


def _expected(key: str, value: Any) -> str | None:
    """What a key's value should have been; None where it may be so."""
    if key in LEAST and not _whole(value, LEAST[key]):
        return f"a whole number from {LEAST[key]}"
    if key == "validation_cases" and value is not None and not _whole(value, 1):
        return "a whole number from 1, or null for all"
    if key == "patch_size" and not (isinstance(value, list) and all(_whole(n, 1) for n in value)):
        return "a list of voxels along each axis, such as [40, 40, 40]"
    if key == "loss_margin" and not (_whole(value, 0) or (_three(value) and all(_whole(n, 0) for n in value))):
        return "a whole number from 0, or a list of three"
    if key == "spacing" and value is not None and not (_three(value) and all(_number(mm) and mm > 0 for mm in value)):
        return "millimetres along three axes, such as [1, 1, 1], or null for each scan's own"
    if key == "mirror_axes" and not (isinstance(value, list) and all(_whole(a, 0) and a in AXES for a in value)):
        return "a list of axes: 0 right-left, 1 anterior-posterior, 2 superior-inferior; [] for none"
    return None


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
