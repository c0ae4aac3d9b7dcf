"""Passes over interleaved sub-lattices: all at once, or a few at a time so that a whole scan takes little memory.

Sub-lattices never meet within a stage, so that each can go through it, and through what follows, by itself. The stages
are callables: nothing here knows of a network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from rarevox.networks.lattices.deal import (
    crop,
    from_lattices,
    lattice,
    pad_to_multiple,
    some_lattices,
    to_lattices,
)
from rarevox.networks.lattices.padding import Layout, Padding
from rarevox.networks.lattices.side_by_side import from_side_by_side, planes_between, side_by_side
from rarevox.networks.protocols import Reduction

# A pass in pieces takes about so many voxels at a time, and one sub-lattice at least: a tensor of 64 channels is then
# 64 MiB in float32, and a convolution has work enough for any device.
PIECE_VOXELS = 2**18
# Voxels with their padding for each one without, beyond which volumes are better left as they are.
MOST_PADDED = 1.5


def piece_voxels(x: torch.Tensor, channels: int) -> int:
    """Voxels of a pass in pieces: `PIECE_VOXELS`, on a GPU as many as a quarter of its free memory holds.

    There each piece costs hundreds of launches, whatever its size. So many voxels of four tensors of ``channels``.
    """
    if not x.is_cuda:
        return PIECE_VOXELS
    free = torch.cuda.mem_get_info(x.device)[0]
    # What PyTorch keeps of freed memory is free as well.
    free += torch.cuda.memory_reserved(x.device) - torch.cuda.memory_allocated(x.device)
    return max(PIECE_VOXELS, free // 4 // (4 * channels * x.element_size()))


Stage = Callable[[torch.Tensor, Layout], torch.Tensor]
"""Some sub-lattices (B', C, *spatial) and how their voxels lie, to (B', C', *spatial)."""


def period(stages: Sequence[Stage]) -> int:
    """What sizes are padded to: each of ``stages`` has twice the dilation of the one before, the first one 2."""
    return int(2 ** len(stages))


def padded_share(size: Sequence[int], multiple: int) -> float:
    """Voxels of a volume whose sizes are padded to a multiple, for each one of its own.

    >>> padded_share((4, 8), 4), padded_share((5, 8), 4)
    (1.0, 1.6)
    """
    return math.prod(length + (-length) % multiple for length in size) / math.prod(size)


def on_lattices(x: torch.Tensor, stages: Sequence[Stage], head: Stage, reduce: Reduction) -> torch.Tensor:
    """``reduce(head(stages(x)))``, each stage on sub-lattices whose voxels lie twice as far apart as before.

    Args:
        x: (B, C, *spatial), what comes from the undilated stage.
        stages: with dilation 2, 4 …, to be called without their dilation.
        head: 1³ layers.
        reduce: of the result.

    Returns:
        (B, C', *spatial).
    """
    size, multiple = x.shape[2:], period(stages)
    layout = Layout(x.shape[0], padding=Padding.of(x, multiple))
    x = pad_to_multiple(x, multiple)
    for stage in stages:
        layout = layout.dealt(2)
        x = stage(to_lattices(x, 2), layout)
    return reduce(crop(from_lattices(head(x, layout), (2,) * len(stages)), size))


def packed(x: torch.Tensor, stages: Sequence[Stage], head: Stage, reduce: Reduction) -> torch.Tensor:
    """`on_lattices` without gradients, with the sub-lattices of a stage side by side in one volume.

    For stages that do with each voxel the same, as norms in evaluation do, and convolve nothing else than 3³.
    """
    size = x.shape[2:]
    layout = Layout(x.shape[0])
    for factor in (2**number for number in range(1, len(stages) + 1)):
        layout = Layout(x.shape[0], on_lattices=True, planes=planes_between(size, factor))
        x = stages[factor.bit_length() - 2](side_by_side(x, factor), layout)
        if factor < 2 ** len(stages):
            x = from_side_by_side(x, factor, size)
    return reduce(from_side_by_side(head(x, layout), 2 ** len(stages), size))


def in_pieces(
    x: torch.Tensor, stages: Sequence[Stage], head: Stage, reduce: Reduction, most: int | None = None
) -> torch.Tensor:
    """`on_lattices` a few sub-lattices at a time, each piece reduced by itself: memory for ``x`` and one piece.

    For stages whose rows do not depend on one another, as those of batch norm in evaluation. A piece has about ``most``
    voxels (`PIECE_VOXELS`).
    """
    layout = Layout(x.shape[0], padding=Padding.of(x, period(stages)))
    return _in_pieces(x, layout, stages, head, reduce, PIECE_VOXELS if most is None else most)


def _in_pieces(
    x: torch.Tensor, layout: Layout, stages: Sequence[Stage], head: Stage, reduce: Reduction, most: int
) -> torch.Tensor:
    if not stages:
        return reduce(head(x, layout))

    def rest(x: torch.Tensor, layout: Layout) -> torch.Tensor:
        return _in_pieces(stages[0](x, layout), layout, stages[1:], head, reduce, most)

    return by_lattices(rest, x, layout.dealt(2), period(stages), most)


def by_lattices(
    function: Stage, x: torch.Tensor, layout: Layout, multiple: int, most: int | None = None
) -> torch.Tensor:
    """``function`` of the sub-lattices of dilation 2 of ``x``, a few at a time, put together again.

    Args:
        function: of (some sub-lattices, their layout), (B', C, *spatial) to (B', C', *spatial).
        x: (B, C, *spatial).
        layout: of all sub-lattices of ``x``, padded to ``multiple``.
        multiple: what the sizes are padded to, in ``x``.
        most: voxels of a piece, about; `PIECE_VOXELS`.

    Returns:
        (B, C', *spatial).
    """
    batch, dims = x.shape[0], x.ndim - 2
    offsets = list(itertools.product((0, 1), repeat=dims))
    voxels = math.prod(-(-length // multiple) * multiple // 2 for length in x.shape[2:])
    rows = max(1, (PIECE_VOXELS if most is None else most) // voxels)
    result: torch.Tensor | None = None
    for start in range(0, batch * len(offsets), rows):
        some = range(start, min(start + rows, batch * len(offsets)))
        piece = function(some_lattices(x, 2, some, multiple), layout.rows(some.start, some.stop))
        if result is None:
            result = piece.new_empty((batch, piece.shape[1], *x.shape[2:]))
        for row, values in zip(some, piece, strict=True):
            sample, remainder = divmod(row, len(offsets))
            places = lattice(result[sample], 2, offsets[remainder])
            places.copy_(crop(values, places.shape[1:]))
    assert result is not None
    return result
