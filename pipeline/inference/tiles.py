"""Which tiles cover a volume: as few and as large as memory allows, each with the context that the network needs.

Everything is per axis, in voxels. Output tiles are disjoint, cover the volume and differ by at most one step. A tile's
input is its output enlarged

* by ``margin`` for networks of valid convolutions (which lose it again), whatever part reaches beyond the volume being
  zeros;
* by ``context`` = (receptive field − 1) / 2 for size-keeping networks, cut at the volume's faces, so that the network's
  own zero padding acts exactly where it would in one pass over the whole volume.

Where an input size must be a multiple of something, the volume is taken as padded with zeros at its far faces, and
tiles begin at multiples. Either way the stitched result is the single pass over that volume: exactly in exact
arithmetic, to rounding in floating point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        output: slices of the volume that this tile fills.
        start: first voxel of the input block; negative where it begins in the zero padding.
        size: input size of the block, a size the network takes.
        keep: slices of the network's output that go to ``output``.
    """

    output: tuple[slice, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]
    keep: tuple[slice, ...]


@dataclass(frozen=True)
class AxisRule:
    """What the network asks of one axis.

    Attributes:
        margin: voxels lost per face (0 for size-keeping networks).
        context: voxels of true surroundings that an output voxel depends on, per face (0: none is added).
        multiple: input sizes must be ``base`` plus a multiple of this.
        base: see ``multiple``.
        minimum: smallest input size.
    """

    margin: int = 0
    context: int = 0
    multiple: int = 1
    base: int = 0
    minimum: int = 1

    def round_up(self, size: int) -> int:
        """The smallest input size from ``size`` on that the network takes.

        >>> AxisRule(multiple=3, minimum=51).round_up(10), AxisRule(multiple=4).round_up(10)
        (51, 12)
        """
        size = max(size, self.minimum)
        return size + (self.base - size) % self.multiple


def axis_tiles(length: int, tiles: int, rule: AxisRule) -> list[tuple[slice, int, int, slice]]:
    """(output slice, input start, input size, kept slice) of each of about ``tiles`` tiles along one axis.

    >>> axis_tiles(10, 1, AxisRule(multiple=4))
    [(slice(0, 10, None), 0, 12, slice(0, 10, None))]
    """
    step = math.ceil(length / max(min(tiles, length), 1))
    if rule.multiple > 1 and tiles > 1:
        step = math.ceil(step / rule.multiple) * rule.multiple
    found = []
    for begin in range(0, length, step):
        end = min(begin + step, length)
        if rule.margin:
            start = begin - rule.margin
            size = rule.round_up(end - begin + 2 * rule.margin)
            keep = slice(0, end - begin)
        else:
            context = math.ceil(rule.context / rule.multiple) * rule.multiple  # pooled grids stay aligned
            start = max(begin - context, 0)
            size = rule.round_up(min(end + context, length) - start)
            keep = slice(begin - start, end - start)
        found.append((slice(begin, end), start, size, keep))
    return found


def plan(shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule]) -> Iterator[Tile]:
    """The tiles for a volume of ``shape`` cut into about ``counts`` parts along each axis."""
    axes = [axis_tiles(n, k, rule) for n, k, rule in zip(shape, counts, rules, strict=True)]
    for parts in itertools.product(*axes):
        output, start, size, keep = zip(*parts, strict=True)
        yield Tile(output, start, size, keep)


def largest_input(shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule]) -> int:
    """Voxels of the largest input block of that plan."""
    axes = [axis_tiles(n, k, rule) for n, k, rule in zip(shape, counts, rules, strict=True)]
    return math.prod(max(size for _, _, size, _ in axis) for axis in axes)


def computed_voxels(shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule]) -> int:
    """Input voxels of all blocks of that plan: what it costs."""
    axes = [axis_tiles(n, k, rule) for n, k, rule in zip(shape, counts, rules, strict=True)]
    return math.prod(sum(size for _, _, size, _ in axis) for axis in axes)


def fewest_tiles(shape: Sequence[int], rules: Sequence[AxisRule], voxels: float) -> tuple[int, ...]:
    """Parts per axis of the cheapest plan whose largest input block has at most ``voxels`` voxels.

    Axes are cut one at a time, each time the one whose further cut computes the fewest voxels in all. Where even the
    smallest blocks exceed the limit, those are taken.

    >>> fewest_tiles((64, 64, 64), [AxisRule(context=4)] * 3, 64**3)
    (1, 1, 1)
    """
    counts = [1] * len(shape)
    while largest_input(shape, counts, rules) > voxels:
        finer = []
        for axis, length in enumerate(shape):
            smaller = _next_smaller(length, counts[axis], rules[axis])
            if smaller is not None:
                trial = [*counts[:axis], smaller, *counts[axis + 1 :]]
                finer.append((computed_voxels(shape, trial, rules), trial))
        if not finer:
            break
        counts = min(finer)[1]
    return tuple(counts)


def _next_smaller(length: int, tiles: int, rule: AxisRule) -> int | None:
    """The next number of tiles along an axis whose largest input is smaller than with ``tiles``, if there is one."""

    def largest(count: int) -> int:
        return max(size for _, _, size, _ in axis_tiles(length, count, rule))

    now = largest(tiles)
    return next((count for count in range(tiles + 1, length + 1) if largest(count) < now), None)
