"""A kernel that does nothing: importing it tells whether Numba has a place to keep compiled code in.

Numba looks for the place when a function that is to be kept is defined, and raises RuntimeError where there is none.
Nothing else here can.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def nothing() -> None:
    """Never called, so never compiled."""
