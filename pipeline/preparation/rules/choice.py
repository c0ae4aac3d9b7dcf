"""What a rule chooses and why, and when foreground is rare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

RARE = 0.01
"""Foreground on a smaller share of the median scan is rare: most of what the network is shown afterwards holds none."""


class Choice(NamedTuple):
    """A configuration key, the value chosen and why, in a sentence or two."""

    key: str
    value: Any
    reason: str


def foreground_share(fingerprint: Mapping[str, Any]) -> float:
    """Of the median scan that holds any; 0 where no case has labels. (That others hold none is a rule of its own.)

    >>> foreground_share({"foreground_share": {"median": 0.004}}), foreground_share({"foreground_share": {}})
    (0.004, 0.0)
    """
    held = (
        fingerprint.get("foreground_share_held") or fingerprint["foreground_share"]
    )  # which earlier versions had alone
    return float(held.get("median", 0.0))


def filled(fingerprint: Mapping[str, Any]) -> str:
    """How much foreground fills, as the beginning of a reason.

    >>> filled({"foreground_share": {"median": 0.0038}})
    'Foreground fills 0.38 % of a scan'
    """
    return f"Foreground fills {100 * foreground_share(fingerprint):.2g} % of a scan"
