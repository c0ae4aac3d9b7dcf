"""Figures as text, alike in the terminal, in tables and on pages."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping


def figure(value: float | None, digits: int = 3) -> str:
    """A figure as text; a dash where there is none.

    >>> figure(0.8915), figure(float("nan")), figure(None)
    ('0.891', '–', '–')
    """
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else "–"


def interval_text(mean: float | None, interval: tuple[float, float] | list[float]) -> str:
    """A mean and its interval.

    >>> interval_text(0.5, (0.4, 0.6))
    '0.500 (0.400 to 0.600)'
    """
    low, high = interval
    if low is None or not math.isfinite(low):
        return figure(mean)
    return f"{figure(mean)} ({figure(low)} to {figure(high)})"


def round_ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """At most so many round numbers from ``low`` to ``high``, 1, 2 or 5 times a power of ten apart, with their texts.

    >>> round_ticks(10.493, 249.402)
    [(50.0, '50'), (100.0, '100'), (150.0, '150'), (200.0, '200')]
    >>> [text for _, text in round_ticks(0.0, 0.031)]
    ['0.00', '0.01', '0.02', '0.03']
    """
    if not (math.isfinite(high - low) and high > low):
        return []
    power = math.floor(math.log10((high - low) / most))
    step, digits = 0.0, 0
    for factor, more in ((1, 0), (2, 0), (5, 0), (10, 1), (20, 1)):
        step, digits = factor * 10.0**power, max(0, -power - more)
        if math.floor(high / step) - math.ceil(low / step) < most:
            break
    first, last = math.ceil(low / step), math.floor(high / step)
    return [(number * step, f"{number * step:.{digits}f}") for number in range(first, last + 1)]


def rules_text(value: object) -> str:
    """Rules by structure as a line to read; no rules, or a text, as they are said.

    >>> rules_text({"lesion": {"threshold": 0.3, "aim": "dice"}, "cyst": {"largest": True}}), rules_text({})
    ('lesion: threshold 0.3, aim dice; cyst: largest True', 'none')
    """
    if not isinstance(value, Mapping):
        return str(value or "none")
    rules = (f"{name}: {_rule(one)}" for name, one in value.items())
    return "; ".join(rules) or "none"


def _rule(one: object) -> str:
    return ", ".join(f"{key} {limit}" for key, limit in one.items()) if isinstance(one, Mapping) else str(one)


def moment(seconds: float) -> str:
    """A time of a file, to the minute, as this machine's clock has it.

    >>> len(moment(0.0))
    16
    """
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
