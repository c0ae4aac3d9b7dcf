"""Which tiles cover a volume: as few and as large as memory allows, each with the context that the network needs.

Everything is per axis, in voxels. Output tiles are disjoint, cover the volume and differ by at most one step. A tile's
input is its output enlarged

* by ``margin`` for networks of valid convolutions (which lose it again), whatever part reaches beyond the volume being
  zeros;
* by ``context`` = (receptive field − 1) / 2 for size-keeping networks, cut at the volume's faces, so that the network's
  own zero padding acts exactly where it would in one pass over the whole volume. With a ``surround`` the volume is
  taken as lying in so many zeros at each face, and its faces are theirs;
* to all of the axis, which then has one tile, for networks that take statistics of all that they see along it
  (:func:`whole_axes`).

Where an input size must be a multiple of something, the volume is taken as padded with zeros at its far faces, and
tiles begin at multiples. Either way the stitched result is the single pass over that volume: exactly in exact
arithmetic, to rounding in floating point.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd

from rarevox.networks import Geometry, SliceWise
from rarevox.networks.norms import SampleNorm


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        output: slices of the volume (of the box, where one is asked for) that this tile fills.
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
        surround: voxels of zeros around the volume, per face; for size-keeping networks.
        whole: every output voxel depends on all of the axis, which is never cut.
    """

    margin: int = 0
    context: int = 0
    multiple: int = 1
    base: int = 0
    minimum: int = 1
    surround: int = 0
    whole: bool = False

    def round_up(self, size: int) -> int:
        """The smallest input size from ``size`` on that the network takes.

        >>> AxisRule(multiple=3, minimum=51).round_up(10), AxisRule(multiple=4).round_up(10)
        (51, 12)
        """
        size = max(size, self.minimum)
        return size + (self.base - size) % self.multiple


def whole_axes(network: object, spatial_dims: int) -> tuple[bool, ...]:
    """Along which axes each voxel of the output depends on all of the input, whatever the convolutions reach.

    So it is where a module takes statistics of what it is given: instance and group norms, batch norms without running
    statistics, adaptive pooling (squeeze and excitation). A tile has other statistics than the scan, and other labels.
    Of a network on slices they are those of a slice.

    >>> whole_axes(nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2)), 3), whole_axes(nn.BatchNorm3d(2), 3)
    ((True, True, True), (False, False, False))
    """
    modules = network.modules() if isinstance(network, nn.Module) else iter(())
    if not any(_looks_at_all(module) for module in modules):
        return (False,) * spatial_dims
    return tuple(axis < 2 or not isinstance(network, SliceWise) for axis in range(spatial_dims))


def _looks_at_all(module: nn.Module) -> bool:
    if isinstance(module, (_BatchNorm, _InstanceNorm)):
        return module.running_mean is None
    return isinstance(module, (nn.GroupNorm, SampleNorm, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd))


def axis_rules(
    geometry: Geometry, surround: Sequence[int] | None = None, whole: Sequence[bool] | None = None
) -> list[AxisRule]:
    """A network's geometry, axis by axis, as the tiler reads it.

    Args:
        geometry: of the network.
        surround: voxels of zeros around the volume; where convolutions are valid there are always enough.
        whole: axes that are not cut (:func:`whole_axes`); None are none.

    >>> axis_rules(Geometry(receptive_field=(87,)))
    [AxisRule(margin=0, context=43, multiple=1, base=0, minimum=1, surround=0, whole=False)]
    """
    g, rules = geometry, []
    for axis, margin in enumerate(g.margin):
        context = 0 if margin else (g.receptive_field[axis] - 1) // 2
        around = 0 if margin or surround is None else surround[axis]
        uncut = whole is not None and whole[axis]
        rules.append(AxisRule(margin, context, g.multiple[axis], g.base[axis], g.minimum[axis], around, uncut))
    return rules


Part = tuple[slice, int, int, slice]
Box = Sequence[tuple[int, int]]
"""First voxel and end along each axis."""


def axis_tiles(length: int, tiles: int, rule: AxisRule, begin: int = 0, end: int | None = None) -> list[Part]:
    """(output slice, input start, input size, kept slice) of each of about ``tiles`` tiles along one axis.

    Args:
        length: of the volume.
        tiles: how many are wished for.
        rule: what the network asks.
        begin: where the wanted part of the axis begins; output slices count from there.
        end: where it ends; the end of the volume if None. Context is taken from the whole volume.

    >>> axis_tiles(10, 1, AxisRule(multiple=4))
    [(slice(0, 10, None), 0, 12, slice(0, 10, None))]
    >>> axis_tiles(10, 1, AxisRule(context=2), 4, 6)
    [(slice(0, 2, None), 2, 6, slice(2, 4, None))]
    >>> axis_tiles(10, 5, AxisRule(whole=True), 4, 6)
    [(slice(0, 2, None), 0, 10, slice(4, 6, None))]
    """
    around = rule.surround
    begin, end, length = begin + around, (length if end is None else end) + around, length + 2 * around
    if rule.whole:
        size = rule.round_up(length + 2 * rule.margin)
        return [(slice(0, end - begin), -rule.margin - around, size, slice(begin, end))]
    first = begin - begin % rule.multiple  # so that pooled grids and coarse blocks lie where one pass puts them
    step = math.ceil((end - first) / max(min(tiles, end - first), 1))
    if rule.multiple > 1 and tiles > 1:
        step = math.ceil(step / rule.multiple) * rule.multiple
    context = math.ceil(rule.context / rule.multiple) * rule.multiple
    found = []
    for at in range(first, end, step):
        low, stop = max(at, begin), min(at + step, end)
        if rule.margin:
            start = at - rule.margin
            size, shift = rule.round_up(stop - at + 2 * rule.margin), at
        else:
            start = max(at - context, 0)
            size, shift = rule.round_up(min(stop + context, length) - start), start
        found.append((slice(low - begin, stop - begin), start - around, size, slice(low - shift, stop - shift)))
    return found


def _axes(shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule], box: Box | None) -> list[list[Part]]:
    """The tiles of each axis."""
    spans = box or [(0, length) for length in shape]
    return [axis_tiles(n, k, rule, *span) for n, k, rule, span in zip(shape, counts, rules, spans, strict=True)]


def plan(
    shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule], box: Box | None = None
) -> Iterator[Tile]:
    """The tiles for a volume of ``shape``, or for a ``box`` of it, cut into about ``counts`` parts along each axis."""
    for parts in itertools.product(*_axes(shape, counts, rules, box)):
        output, start, size, keep = zip(*parts, strict=True)
        yield Tile(output, start, size, keep)


def largest_input(
    shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule], box: Box | None = None
) -> int:
    """Voxels of the largest input block of that plan."""
    return math.prod(max(size for _, _, size, _ in axis) for axis in _axes(shape, counts, rules, box))


def computed_voxels(
    shape: Sequence[int], counts: Sequence[int], rules: Sequence[AxisRule], box: Box | None = None
) -> int:
    """Input voxels of all blocks of that plan: what it costs."""
    return math.prod(sum(size for _, _, size, _ in axis) for axis in _axes(shape, counts, rules, box))


def fewest_tiles(
    shape: Sequence[int], rules: Sequence[AxisRule], voxels: float, box: Box | None = None
) -> tuple[int, ...]:
    """Parts per axis of the cheapest plan whose largest input block has at most ``voxels`` voxels.

    Of all plans the one that computes the fewest voxels, of several the one of the fewest tiles. Where even the
    smallest blocks exceed the limit, it is taken for twice those: in the smallest, context is nearly all.

    >>> fewest_tiles((64, 64, 64), [AxisRule(context=4)] * 3, 64**3)
    (1, 1, 1)
    """
    spans = box or [(0, length) for length in shape]
    each = [_cuts(n, rule, begin, end) for n, rule, (begin, end) in zip(shape, rules, spans, strict=True)]
    # Every combination of the axes' cuts: a few dozen an axis.
    counts, largest, computed = (
        functools.reduce(np.multiply.outer, [np.asarray([cut[k] for cut in axis], float) for axis in each])
        for k in range(3)
    )
    fits = largest <= (voxels if voxels >= largest.min() else 2 * largest.min())
    best = np.lexsort((counts[fits], computed[fits]))[0]
    chosen = np.argwhere(fits)[best]
    return tuple(axis[k][0] for axis, k in zip(each, chosen, strict=True))


@functools.lru_cache(maxsize=64)
def _cuts(length: int, rule: AxisRule, begin: int, end: int) -> tuple[tuple[int, int, int], ...]:
    """(tiles, largest input, computed voxels) of every number of tiles along an axis whose largest input is smaller
    than that of fewer."""
    found: list[tuple[int, int, int]] = []
    count = 1
    while count <= end - begin:
        sizes = [size for _, _, size, _ in axis_tiles(length, count, rule, begin, end)]
        if not found or max(sizes) < found[-1][1]:
            found.append((count, max(sizes), sum(sizes)))
        # The next number whose tiles are shorter: the tiles of the numbers between are as long as these.
        span = end - begin + (begin + rule.surround) % rule.multiple
        step = math.ceil(span / count)
        if step == 1:
            break
        count = math.ceil(span / (step - 1))
    return tuple(found)
