"""The maps that are asked for beside the labels, shown the same class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from rarevox.pipeline.inference.watch import Watch
from rarevox.transforms.reader import Scan


class Map(Watch, Protocol):
    """A :class:`Watch` that becomes files."""

    def save(self, folder: Path, case: str, grid: Scan) -> dict[str, Any]:
        """Write the files of a scan; the entry of its result row, names of files by kind."""


class Maps:
    """Several maps of one scan as one.

    Args:
        maps: all of them.
    """

    def __init__(self, maps: Sequence[Map]) -> None:
        self.maps = tuple(maps)

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins."""
        for one in self.maps:
            one.begin(shape)

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Show a block to all."""
        for one in self.maps:
            one.take(log_probabilities, where)

    def save(self, folder: Path, case: str, grid: Scan) -> dict[str, Any]:
        """Write all files."""
        written: dict[str, Any] = {}
        for one in self.maps:
            written |= one.save(folder, case, grid)
        return written
