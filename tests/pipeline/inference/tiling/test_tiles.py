from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from monai.networks.nets import DynUNet, SegResNet, UNet
from torch import nn

from rarevox.networks import HighResNet, SliceWise, ValidUNet
from rarevox.pipeline.inference.tiling.tiles import (
    AxisRule,
    axis_tiles,
    computed_voxels,
    fewest_tiles,
    largest_input,
    plan,
    whole_axes,
)

RULES = st.one_of(
    st.builds(
        AxisRule, context=st.integers(0, 50), multiple=st.sampled_from([1, 2, 4, 8]), surround=st.integers(0, 20)
    ),
    st.builds(AxisRule, margin=st.integers(1, 24), multiple=st.sampled_from([1, 3, 4]), minimum=st.just(51)),
)


@given(length=st.integers(1, 200), tiles=st.integers(1, 40), rule=RULES)
def test_outputs_cover_the_axis_once_and_have_their_context(length: int, tiles: int, rule: AxisRule) -> None:
    covered = np.zeros(length, int)
    for output, start, size, keep in axis_tiles(length, tiles, rule):
        covered[output] += 1
        assert size == rule.round_up(size)
        assert keep.stop - keep.start == output.stop - output.start
        if rule.margin:
            assert start + rule.margin + keep.start == output.start
            assert keep.stop <= size - 2 * rule.margin
        else:
            assert start + keep.start == output.start
            assert keep.stop <= size
            assert (start + rule.surround) % rule.multiple == 0
            assert output.start - start >= min(rule.context, output.start + rule.surround)
            assert start + size >= min(output.stop + rule.context, length + rule.surround)
    assert (covered == 1).all()


@given(shape=st.tuples(*[st.integers(1, 90)] * 3), rule=RULES, voxels=st.integers(1000, 10**6))
def test_the_limit_is_kept_or_the_blocks_are_the_smallest(shape: tuple[int, ...], rule: AxisRule, voxels: int) -> None:
    rules = [rule] * 3
    counts = fewest_tiles(shape, rules, voxels)
    largest = max(math.prod(tile.size) for tile in plan(shape, counts, rules))
    assert largest == largest_input(shape, counts, rules)
    smallest = math.prod(min(max(s for _, _, s, _ in axis_tiles(n, k, rule)) for k in range(1, n + 1)) for n in shape)
    assert largest <= voxels or (voxels < smallest and largest <= 2 * smallest)
    assert sum(math.prod(tile.size) for tile in plan(shape, counts, rules)) == computed_voxels(shape, counts, rules)


@given(length=st.integers(1, 120), tiles=st.integers(1, 9), rule=RULES, data=st.data())
def test_tiles_of_a_box_lie_where_those_of_the_volume_would(
    length: int, tiles: int, rule: AxisRule, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(begin + 1, length))
    covered = np.zeros(end - begin, int)
    for output, start, size, keep in axis_tiles(length, tiles, rule, begin, end):
        covered[output] += 1
        assert size == rule.round_up(size)
        assert keep.stop - keep.start == output.stop - output.start
        lost = rule.margin or 0
        assert start + lost + keep.start == begin + output.start
        assert (
            start + lost + rule.surround
        ) % rule.multiple == 0  # pooled grids and coarse blocks are those of the whole volume
        if not rule.margin:
            assert keep.start >= min(rule.context, begin + output.start + rule.surround)
            assert start + size >= min(begin + output.stop + rule.context, length + rule.surround)
    assert (covered == 1).all()


@given(shape=st.tuples(*[st.integers(1, 40)] * 3), rules=st.tuples(RULES, RULES, RULES), share=st.floats(0.01, 1))
@settings(max_examples=30)
def test_no_plan_within_the_limit_computes_less(shape: tuple[int, ...], rules: Any, share: float) -> None:
    voxels = share * largest_input(shape, (1, 1, 1), rules)
    found = fewest_tiles(shape, rules, voxels)
    for counts in itertools.product(*(sorted({1, 2, 3, n // 2 or 1, n}) for n in shape)):
        if largest_input(shape, counts, rules) <= voxels:
            assert computed_voxels(shape, found, rules) <= computed_voxels(shape, counts, rules)


def test_one_tile_where_memory_allows() -> None:
    assert fewest_tiles((240, 240, 155), [AxisRule(context=43)] * 3, 240 * 240 * 155) == (1, 1, 1)


def test_sizes_by_hand() -> None:
    """An axis of 100 in two tiles of a network that loses 24 at each face in steps of 3: halves of 51 (a multiple of 3)
    need inputs of 99; the second covers 49 voxels, for which 97 rounds up to 99."""
    rule = AxisRule(margin=24, multiple=3, minimum=51)
    assert axis_tiles(100, 2, rule) == [
        (slice(0, 51), -24, 99, slice(0, 51)),
        (slice(51, 100), 27, 99, slice(0, 49)),
    ]


@pytest.mark.parametrize(
    ("network", "looked"),
    [
        (lambda: DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 8]), (True, True, True)),
        (lambda: SegResNet(3, 8, 1, 2), (True, True, True)),
        (lambda: UNet(3, 1, 2, [4, 8], [2], norm="batch"), (False, False, False)),
        (lambda: HighResNet(in_channels=1, out_channels=2, width=2), (False, False, False)),
        (lambda: HighResNet(in_channels=1, out_channels=2, width=2, norm="instance"), (True, True, True)),
        (
            lambda: SliceWise(HighResNet(in_channels=1, out_channels=2, spatial_dims=2, norm="instance")),
            (True, True, False),
        ),
        (lambda: SliceWise(ValidUNet(in_channels=1, out_channels=2, width=2, norm="batch")), (False, False, False)),
        (lambda: nn.InstanceNorm3d(2, track_running_stats=True), (False, False, False)),
        (lambda: nn.BatchNorm3d(2, track_running_stats=False), (True, True, True)),
        (lambda: ChannelSELayer(3, 4), (True, True, True)),
        (lambda: torch.relu, (False, False, False)),
    ],
)
def test_axes_along_which_a_network_looks_at_all_of_its_input(network, looked) -> None:
    assert whole_axes(network(), 3) == looked


def test_an_axis_that_is_looked_along_is_never_cut() -> None:
    """Whatever the memory and the box; the other axes are, and a block is what one pass over the scan takes."""
    kept = AxisRule(context=3, multiple=4, whole=True)
    rules = [kept, AxisRule(margin=2, whole=True), AxisRule(), AxisRule(context=2, surround=3, whole=True)]
    counts = fewest_tiles((10, 9, 8, 5), rules, 1)
    assert counts == (1, 1, 4, 1)  # twice the smallest
    for box in (None, [(2, 3), (4, 9), (7, 8), (0, 1)]):
        for tile in plan((10, 9, 8, 5), counts, rules, box):
            assert (tile.size[0], tile.size[1], tile.size[3]) == (12, 13, 11)
            assert (tile.start[0], tile.start[1], tile.start[3]) == (0, -2, -3)
    assert (tile.keep[0], tile.keep[1], tile.keep[3]) == (slice(2, 3), slice(4, 9), slice(3, 4))
