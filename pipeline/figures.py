"""Figures as text, alike in the terminal, in tables and on pages."""

from __future__ import annotations

import math


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
