"""Checks of the losses' options: each gives the value back as a float, or says what was expected."""

from __future__ import annotations

import math


def check_fraction(name: str, value: float) -> float:
    """``value`` as a float if it lies in [0, 1].

    >>> check_fraction("alpha", 1)
    1.0

    Raises:
        ValueError: it lies outside; the message names the option.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r} is out of range; expected a number from 0 to 1")
    return float(value)


def check_positive(name: str, value: float) -> float:
    """``value`` as a float if it is finite and above 0.

    >>> check_positive("beta", 2)
    2.0

    Raises:
        ValueError: it is not; the message names the option.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value!r} is out of range; expected a finite number above 0")
    return float(value)
