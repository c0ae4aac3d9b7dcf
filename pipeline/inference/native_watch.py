"""Scores of the network shown block by block as class probabilities on the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from rarevox.pipeline.inference.watch import Watch
from rarevox.transforms.native_grid import Lattice, native_block

CHUNK_VOXELS = 1 << 20
CERTAIN = -1e4
"""The logarithm that stands for probability 0 where a voxel is background by rule; exp() of it is 0 in any format."""


class NativeWatch:
    """Pass scores on to a :class:`Watch`, as probabilities and on the scan's own grid, a chunk of planes at a time.

    Args:
        watch: who is interested.
        log_probabilities: makes them of scores (C, …), see ``DenseInferer.log_probabilities``.
        shape: of the scan.
        lattice: how scan and network grid are related, for tiles; None where they are not voxel to voxel.
    """

    def __init__(
        self,
        watch: Watch,
        log_probabilities: Callable[[torch.Tensor], torch.Tensor],
        shape: Sequence[int],
        lattice: Lattice | None,
    ) -> None:
        self.watch, self.log_probabilities, self.lattice = watch, log_probabilities, lattice
        self.shape = tuple(int(n) for n in shape)

    def begin(self) -> None:
        """Begin a pass."""
        self.watch.begin(self.shape)

    def take(self, scores: torch.Tensor, where: tuple[slice, ...]) -> None:
        """A tile on the network's grid."""
        if self.lattice is None:
            raise ValueError("tiles cannot be shown on a grid that was resampled; ask the inferer for scores")
        self.native(*native_block(scores, where, self.lattice, self.shape))

    def native(self, scores: torch.Tensor, where: tuple[slice, ...], inside: torch.Tensor | None = None) -> None:
        """A block on the scan's grid; voxels that are not ``inside`` are background."""
        for part, place in chunks(where):
            logs = self.log_probabilities(scores[:, part])
            if inside is not None:
                outside = ~inside[part]
                logs[:, outside] = CERTAIN
                logs[0, outside] = 0.0
            self.watch.take(logs, place)

    def moved(self, first: Sequence[int]) -> Callable[[torch.Tensor, tuple[slice, ...], torch.Tensor | None], None]:
        """:meth:`native` for blocks whose places count from the voxel ``first`` of the scan."""

        def show(scores: torch.Tensor, where: tuple[slice, ...], inside: torch.Tensor | None = None) -> None:
            place = tuple(slice(w.start + n, w.stop + n) for w, n in zip(where, first, strict=True))
            self.native(scores, place, inside)

        return show


def chunks(where: tuple[slice, ...], voxels: int = CHUNK_VOXELS) -> Iterator[tuple[slice, tuple[slice, ...]]]:
    """The planes of a block in groups of at most about ``voxels`` voxels: their place in the block and in the volume.

    >>> list(chunks((slice(4, 7), slice(0, 2), slice(0, 2)), voxels=8))
    [(slice(0, 2, None), (slice(4, 6, None), slice(0, 2, None), slice(0, 2, None))), \
(slice(2, 3, None), (slice(6, 7, None), slice(0, 2, None), slice(0, 2, None)))]
    """
    planes, *rest = where
    plane = max(1, (rest[0].stop - rest[0].start) * (rest[1].stop - rest[1].start))
    step, size = max(1, voxels // plane), planes.stop - planes.start
    for begin in range(0, size, step):
        end = min(begin + step, size)
        yield slice(begin, end), (slice(planes.start + begin, planes.start + end), *rest)
