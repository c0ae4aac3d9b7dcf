"""Dilated convolutions as plain ones, on interleaved sub-lattices.

A 3³ convolution of dilation d never mixes voxels whose coordinates differ modulo d. Dealt out to the d³ interleaved
sub-lattices, each a small volume of its own in the batch axis, the volume meets the same weights without dilation:
the same numbers, on kernels that are several times as fast where a library has fast ones for plain convolutions only
(bfloat16 on CPUs with AMX: 177 ms to 106 ms for 64 channels and dilation 4, 68 ms to 11 ms for 32 and dilation 2).
Statistics over the batch do not change, for the voxels are the same ones.

Moves can follow one another: the sub-lattices of dilation 2, moved by 2 again, are those of dilation 4. The
sub-lattices of one sample stay next to each other in the batch axis, so that
``x.unflatten(0, (batch, -1))`` is a view with one row for each sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether the channels of ``x`` (B, C, *spatial) are its innermost axis in memory."""
    return x.stride(1) == 1 and x.shape[1] > 1


def to_lattices(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Deal the voxels of each sample out to its ``factor``^n interleaved sub-lattices, in one copy.

    Voxel ``factor * q + r`` of an axis goes to sub-lattice r, place q. The memory format is kept.

    Args:
        x: (B, C, *spatial), every spatial size divisible by ``factor``.
        factor: the dilation that disappears.

    Returns:
        (B · factor^n, C, *spatial / factor).

    >>> to_lattices(torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 2, 6), 2).shape
    torch.Size([4, 1, 1, 3])
    """
    batch, channels, *size = x.shape
    dims = len(size)
    split = [n for length in size for n in (length // factor, factor)]
    remainders, quotients = range(2, 2 * dims + 1, 2), range(1, 2 * dims, 2)
    count = batch * factor**dims
    small = [length // factor for length in size]
    # Where axes of one voxel let reshape return a view, contiguous() makes it the promised copy; else it costs nothing.
    if is_channels_last(x):
        last = x.movedim(1, -1).reshape(batch, *split, channels)
        return (
            last.permute(0, *remainders, *quotients, 2 * dims + 1)
            .reshape(count, *small, channels)
            .contiguous()
            .movedim(-1, 1)
        )
    first = x.reshape(batch, channels, *split)
    order = (0, *(r + 1 for r in remainders), 1, *(q + 1 for q in quotients))
    return first.permute(order).reshape(count, channels, *small).contiguous()


def some_lattices(x: torch.Tensor, factor: int, rows: range, multiple: int) -> torch.Tensor:
    """Some rows of ``to_lattices(pad_to_multiple(x, multiple), factor)``, without the rest.

    Args:
        x: (B, C, *spatial).
        factor: the dilation that disappears.
        rows: a range of the B · ``factor``^n rows.
        multiple: a multiple of ``factor``.

    >>> x = torch.arange(10.0).reshape(1, 1, 2, 5)
    >>> some_lattices(x, 2, range(1, 2), 2).tolist()
    [[[[1.0, 3.0, 0.0]]]]
    """
    dims = x.ndim - 2
    size = [-(-length // multiple) * multiple // factor for length in x.shape[2:]]
    last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(dims) if is_channels_last(x) else None
    shape = (len(rows), x.shape[1], *size)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last or torch.contiguous_format)
    offsets = list(itertools.product(range(factor), repeat=dims))
    for place, row in enumerate(rows):
        sample, remainder = divmod(row, len(offsets))
        part = lattice(x[sample], factor, offsets[remainder])
        target = result[place]
        for axis, length in enumerate(part.shape[1:], start=1):
            target.narrow(axis, length, target.shape[axis] - length).zero_()
            target = target.narrow(axis, 0, length)
        target.copy_(part)
    return result


def lattice(x: torch.Tensor, factor: int, offset: Sequence[int]) -> torch.Tensor:
    """A sub-lattice of ``x`` (C, *spatial) as a view: every ``factor``-th voxel from ``offset`` on."""
    for axis, first in enumerate(offset, start=1):
        x = x[(slice(None),) * axis + (slice(first, None, factor),)]
    return x


def crop(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The first places of the last axes of ``x``, as many as ``size`` says, as a view."""
    for axis, length in zip(range(x.ndim - len(size), x.ndim), size, strict=True):
        x = x.narrow(axis, 0, length)
    return x


def from_lattices(x: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """Undo the moves ``to_lattices(…, factors[0])``, ``to_lattices(…, factors[1])`` …, in one copy for all.

    Args:
        x: (B · Π factorᵢ^n, C, *spatial).
        factors: the factors of the moves, in the order in which they were made.

    Returns:
        (B, C, *spatial · Π factorᵢ).

    >>> x = torch.randn(2, 3, 8, 4)
    >>> torch.equal(from_lattices(to_lattices(to_lattices(x, 2), 2), (2, 2)), x)
    True
    """
    count, channels, *small = x.shape
    dims, moves = len(small), len(factors)
    period = math.prod(factors)
    batch = count // period**dims
    size = [length * period for length in small]
    # The batch axis holds (batch, the remainders of the first move, those of the second, …); a coordinate is
    # q · f₁f₂… + … + s · f₁ + r, so its axis is built from (q, last remainder, …, first remainder).
    remainders = [factor for factor in factors for _ in range(dims)]
    if is_channels_last(x):
        split = x.movedim(1, -1).reshape(batch, *remainders, *small, channels)
        order = [0]
        for axis in range(dims):
            order.append(1 + moves * dims + axis)
            order.extend(1 + move * dims + axis for move in reversed(range(moves)))
        return split.permute(*order, split.ndim - 1).reshape(batch, *size, channels).contiguous().movedim(-1, 1)
    split = x.reshape(batch, *remainders, channels, *small)
    order = [0, 1 + moves * dims]
    for axis in range(dims):
        order.append(2 + moves * dims + axis)
        order.extend(1 + move * dims + axis for move in reversed(range(moves)))
    return split.permute(order).reshape(batch, channels, *size).contiguous()


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """``x`` (B, C, *spatial) with zeros after its last voxels, so that every size is divisible by ``multiple``."""
    pads = [(-length) % multiple for length in x.shape[2:]]
    if not any(pads):
        return x
    return F.pad(x, [n for pad in reversed(pads) for n in (0, pad)])
