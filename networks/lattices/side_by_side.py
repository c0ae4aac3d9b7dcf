"""Sub-lattices side by side in one volume, a plane of zeros between neighbours, in place of the batch axis.

Kernels that compute whole tiles waste what of a tile lies outside: a scan of 34×52×35 voxels has 64 sub-lattices of
dilation 4, of 9×13×9 voxels, which take 2304 tiles of 4³; side by side, 37×55×38 voxels, they take 1400. A 3³
convolution does not see across a plane, and where that is zero it is the padding of both its neighbours. So it must be
zero whenever a convolution reads it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch

from rarevox.networks.lattices.deal import is_channels_last


def packed_size(size: Sequence[int], factor: int) -> tuple[int, ...]:
    """The size of a volume whose sub-lattices stand side by side.

    >>> packed_size((34, 52, 35), 4)
    (37, 55, 38)
    """
    return tuple(length + min(factor, length) - 1 for length in size)


def planes_between(size: Sequence[int], factor: int) -> tuple[tuple[int, ...], ...]:
    """For each axis the places of the planes between sub-lattices.

    >>> planes_between((5, 2), 3)
    ((2, 5), (1,))
    """
    return tuple(tuple(span.start - 1 for span in _spans(length, factor)[1:]) for length in size)


def fills_tiles(size: Sequence[int], factor: int, tile: int) -> bool:
    """Whether sub-lattices take fewer tiles side by side than each by itself.

    >>> fills_tiles((34, 52, 35), 4, 4), fills_tiles((32, 48, 32), 4, 4)
    (True, False)
    """
    alone = math.prod(factor * -(-length // (factor * tile)) for length in size)
    return math.prod(-(-length // tile) for length in packed_size(size, factor)) < alone


def side_by_side(x: torch.Tensor, factor: int) -> torch.Tensor:
    """The sub-lattices of ``x`` side by side, zeros between them; the memory format is kept.

    Args:
        x: (B, C, *spatial).
        factor: the dilation that disappears.

    Returns:
        (B, C, *packed); see `packed_size`.

    >>> side_by_side(torch.arange(1.0, 6.0).reshape(1, 1, 5), 2).flatten().tolist()
    [1.0, 3.0, 5.0, 0.0, 2.0, 4.0]
    """
    size = x.shape[2:]
    last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(len(size)) if is_channels_last(x) else None
    shape = (*x.shape[:2], *packed_size(size, factor))
    packed = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last or torch.contiguous_format)
    for dealt, box in _boxes(size, factor):
        packed[box] = x[dealt]
    return clear_planes_(packed, planes_between(size, factor))


def from_side_by_side(packed: torch.Tensor, factor: int, size: Sequence[int]) -> torch.Tensor:
    """Undo `side_by_side`.

    Args:
        packed: (B, C, *packed).
        factor: the same.
        size: of the volume, *spatial.

    Returns:
        (B, C, *spatial).

    >>> x = torch.randn(2, 3, 7, 4)
    >>> torch.equal(from_side_by_side(side_by_side(x, 4), 4, (7, 4)), x)
    True
    """
    last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(len(size)) if is_channels_last(packed) else None
    shape = (*packed.shape[:2], *size)
    x = torch.empty(shape, dtype=packed.dtype, device=packed.device, memory_format=last or torch.contiguous_format)
    for dealt, box in _boxes(size, factor):
        x[dealt] = packed[box]
    return x


def clear_planes_(x: torch.Tensor, planes: Sequence[Sequence[int]]) -> torch.Tensor:
    """Set planes to zero, in place.

    Args:
        x: (B, C, *packed).
        planes: for each axis their places; see `planes_between`.
    """
    for axis, places in enumerate(planes, start=2):
        for place in places:
            x.select(axis, place).zero_()
    return x


def fill_planes_(x: torch.Tensor, planes: Sequence[Sequence[int]], values: torch.Tensor) -> torch.Tensor:
    """`clear_planes_` with other values, (C, 1, …) of one axis less than the volume has."""
    for axis, places in enumerate(planes, start=2):
        for place in places:
            x.select(axis, place).copy_(values)
    return x


def _spans(length: int, factor: int) -> list[slice]:
    """Where the sub-lattices of an axis lie, one place between two of them."""
    lengths = [-(-(length - first) // factor) for first in range(min(factor, length))]
    ends = [end + at for at, end in enumerate(itertools.accumulate(lengths))]
    return [slice(end - one, end) for one, end in zip(lengths, ends, strict=True)]


def _boxes(size: Sequence[int], factor: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Of each sub-lattice its voxels in the volume and its box side by side with the others."""
    every = (slice(None), slice(None))
    axes = [list(enumerate(_spans(length, factor))) for length in size]
    for several in itertools.product(*axes):
        dealt = tuple(slice(first, None, factor) for first, _ in several)
        yield (*every, *dealt), (*every, *(span for _, span in several))
