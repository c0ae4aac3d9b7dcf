"""Sub-lattices side by side: every voxel once, neighbours of a dilation apart, nothing seen across a plane of zeros."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from rarevox.networks.lattices.deal import lattice, to_lattices
from rarevox.networks.lattices.side_by_side import (
    clear_planes_,
    fill_planes_,
    fills_tiles,
    from_side_by_side,
    packed_size,
    planes_between,
    side_by_side,
)

SIZES = [(7,), (5, 8), (3, 9), (4, 6, 5), (1, 2, 9)]
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def numbered(size: tuple[int, ...]) -> torch.Tensor:
    """Voxels with numbers of their own from 1 on, two samples of two channels."""
    return torch.arange(1.0, 4 * math.prod(size) + 1).reshape(2, 2, *size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [2, 4])
def test_each_sub_lattice_is_a_box_between_planes_of_zeros(size: tuple[int, ...], factor: int) -> None:
    x = numbered(size)
    packed = side_by_side(x, factor)
    assert packed.shape[2:] == packed_size(size, factor)
    planes = planes_between(size, factor)
    for axis, places in enumerate(planes, start=2):
        assert all(not packed.select(axis, place).any() for place in places)
        assert packed.shape[axis] - len(places) == size[axis - 2], "no place but these is added"
    assert sorted(packed[packed != 0].tolist()) == x.flatten().tolist()
    edges = [[-1, *places, length] for places, length in zip(planes, packed.shape[2:], strict=True)]
    for offsets in itertools.product(*(range(min(factor, length)) for length in size)):
        spans = (slice(edge[at] + 1, edge[at + 1]) for edge, at in zip(edges, offsets, strict=True))
        box = packed[(slice(None), slice(None), *spans)]
        for sample, own in zip(box, x, strict=True):
            assert torch.equal(sample, lattice(own, factor, offsets))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("last", [False, True])
def test_what_was_put_side_by_side_comes_back(size: tuple[int, ...], factor: int, last: bool) -> None:
    x = numbered(size)
    if last and len(size) in FORMATS:
        x = x.contiguous(memory_format=FORMATS[len(size)])
    packed = side_by_side(x, factor)
    assert torch.equal(from_side_by_side(packed, factor, size), x)
    if last and len(size) in FORMATS:
        assert packed.is_contiguous(memory_format=FORMATS[len(size)])


@pytest.mark.parametrize("factor", [2, 4])
def test_a_plain_convolution_of_it_is_the_dilated_one(factor: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 9, 6, 7, dtype=torch.float64), torch.randn(4, 3, 3, 3, 3, dtype=torch.float64)
    expected = F.conv3d(x, weight, padding=factor, dilation=factor)
    found = from_side_by_side(F.conv3d(side_by_side(x, factor), weight, padding=1), factor, x.shape[2:])
    # Both are sums of 81 products in float64; see tests/bounds.py: γ(81) of Σ|term|, which is at most 81 · 25.
    assert (found - expected).abs().max() < 81 * torch.finfo(torch.float64).eps * 81 * 25


def test_planes_take_zeros_or_a_value_of_each_channel_and_nothing_else_changes() -> None:
    x, size = numbered((5, 8)), (5, 8)
    packed, planes = side_by_side(x, 4), planes_between((5, 8), 4)
    filled = fill_planes_(packed.clone(), planes, torch.tensor([-3.0, -5.0]).view(-1, 1))
    assert torch.equal(from_side_by_side(filled, 4, size), x)
    for channel, value in enumerate((-3.0, -5.0)):
        assert (filled[:, channel][packed[:, channel] == 0] == value).all()
    assert torch.equal(clear_planes_(filled, planes), packed)


@pytest.mark.parametrize("size", [(34, 52, 35), (32, 48, 32), (9, 13, 7), (160, 160, 160), (5, 4, 3)])
def test_tiles_are_counted_as_they_are_computed(size: tuple[int, ...]) -> None:
    multiple = tuple(-(-length // 4) * 4 for length in size)
    alone = to_lattices(torch.empty(1, 1, *multiple, device="meta"), 4).shape
    together = packed_size(size, 4)

    def tiles(shape: tuple[int, ...]) -> int:
        return math.prod(-(-length // 4) for length in shape)

    assert fills_tiles(size, 4, 4) == (tiles(together) < alone[0] * tiles(tuple(alone[2:])))
