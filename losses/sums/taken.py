"""Which way a table of sums was made: by kernels, or in PyTorch's operations and why; for a training's log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_TAKEN: ContextVar[list[str] | None] = ContextVar("taken", default=None)


@contextlib.contextmanager
def ways_taken() -> Iterator[list[str]]:
    """The ways that the tables of this context were made, each once, in the order of their first use.

    >>> with ways_taken() as ways:
    ...     take_down("PyTorch's operations")
    ...     take_down("PyTorch's operations")
    >>> ways
    ["PyTorch's operations"]
    """
    ways: list[str] = []
    token = _TAKEN.set(ways)
    try:
        yield ways
    finally:
        _TAKEN.reset(token)


def take_down(way: str) -> None:
    """Add a way to those of the context, where one asks."""
    ways = _TAKEN.get()
    if ways is not None and way not in ways:
        ways.append(way)
