"""A kernel that does nothing: importing it tells whether Numba has a place to keep compiled code in."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def nothing() -> None:
    """Never compiled: the place is looked for when the function is defined."""
