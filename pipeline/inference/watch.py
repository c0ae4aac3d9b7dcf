"""Class probabilities shown block by block to whoever wants them, while nobody holds those of the whole scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # whoever hands scans to workers does without PyTorch
    import torch


class Watch(Protocol):
    """Who sees the probabilities of one scan on the scan's own grid."""

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass over a scan of ``shape`` begins; whatever was shown before counts no more."""

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Natural logarithms (C, x, y, z) of the class probabilities, on any device, at ``where`` in the scan.

        Blocks do not overlap. Voxels that are never shown are background by rule (outside the cropped region).
        """


class TileWatch(Protocol):
    """Who sees the scores of tiles on the network's grid."""

    def begin(self) -> None:
        """A pass begins, perhaps anew after running out of memory."""

    def take(self, scores: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Scores (C, x, y, z) of the voxels ``where``."""


class Together:
    """Several who watch the probabilities of one scan, as one :class:`Watch`.

    Args:
        watches: in an order that whoever made them knows; None for one that needs nothing.
    """

    def __init__(self, watches: Sequence[Watch | None]) -> None:
        self.watches = tuple(watches)
        self._shown = [watch for watch in watches if watch is not None]

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins."""
        for watch in self._shown:
            watch.begin(shape)

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Show a block to all."""
        for watch in self._shown:
            watch.take(log_probabilities, where)


def together(
    makers: Sequence[Callable[[Mapping[str, Any]], Watch]],
) -> Callable[[Mapping[str, Any]], Together] | None:
    """Makers of watches as one; None where there are none."""
    return (lambda item: Together([make(item) for make in makers])) if makers else None
