"""Sub-lattices: where the voxels go, that they come back, and that dilation is gone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.networks.lattices.deal import (
    from_lattices,
    pad_to_multiple,
    some_lattices,
    to_lattices,
)
from rarevox.networks.lattices.padding import Padding, zero_outside_
from tests.bounds import assert_within, random_sum_bound

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
CONVOLVE = {2: F.conv2d, 3: F.conv3d}


def test_voxels_go_to_the_lattice_of_their_remainder() -> None:
    # One row of six voxels, dealt out by 3 on the first axis (of size 3) and on the second.
    x = torch.arange(18.0).reshape(1, 1, 3, 6)
    y = to_lattices(x, 3)
    assert y.shape == (9, 1, 1, 2)
    # Lattice (r, s) holds row r, columns s and s + 3: values 6r + s and 6r + s + 3.
    for r in range(3):
        for s in range(3):
            assert y[3 * r + s].flatten().tolist() == [6 * r + s, 6 * r + s + 3]


@settings(max_examples=40, deadline=None)
@given(
    dims=st.sampled_from([2, 3]),
    factors=st.lists(st.sampled_from([2, 3]), min_size=1, max_size=2),
    lengths=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    last=st.booleans(),
)
def test_moves_come_back(
    dims: int, factors: list[int], lengths: list[int], batch: int, channels: int, last: bool
) -> None:
    period = factors[0] * (factors[1] if len(factors) > 1 else 1)
    x = torch.randn(batch, channels, *(period * n for n in lengths[:dims]))
    if last:
        x = x.to(memory_format=FORMATS[dims])
    y = x
    for factor in factors:
        y = to_lattices(y, factor)
    back = from_lattices(y, factors)
    assert back.equal(x)
    layout = FORMATS[dims] if last else torch.contiguous_format
    if max(lengths[:dims]) == 1:
        return  # sub-lattices of one voxel are of both formats at once
    assert y.is_contiguous(memory_format=layout)
    assert back.is_contiguous(memory_format=layout)


def test_the_lattices_of_a_sample_stay_together() -> None:
    x = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    y = to_lattices(to_lattices(x, 2), 2)
    assert y.flatten().tolist() == [0.0] * 16 + [1.0] * 16


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factors", [(2,), (4,), (2, 2), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True])
def test_equals_the_dilated_convolution(dims: int, factors: tuple[int, ...], dtype: torch.dtype, last: bool) -> None:
    torch.manual_seed(len(factors) + 10 * dims)
    dilation = factors[0] * (factors[1] if len(factors) > 1 else 1)
    x = torch.randn(2, 3, *(dilation * n for n in (2, 3, 1)[:dims]), dtype=dtype)
    x = x.to(memory_format=FORMATS[dims]) if last else x
    weight = torch.randn(4, 3, *(3,) * dims, dtype=dtype)
    results = []
    for on_lattices in (False, True):
        inputs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        y = inputs[0]
        if on_lattices:
            for factor in factors:
                y = to_lattices(y, factor)
            y = from_lattices(CONVOLVE[dims](y, inputs[1], padding=1), factors)
        else:
            y = CONVOLVE[dims](y, inputs[1], padding=dilation, dilation=dilation)
        torch.manual_seed(1)
        results.append((y, *torch.autograd.grad(y, inputs, torch.randn(y.shape, dtype=dtype))))
    for dilated, plain in zip(*results, strict=True):
        # At most 4 · 27 terms, or for the weights' gradient one for each voxel, of products of normal numbers.
        terms = max(4 * 27, y[:, 0].numel())
        assert_within(plain, dilated, 2 * random_sum_bound(terms, dtype) * max(terms**0.5, dilated.abs().max().item()))


@settings(max_examples=40, deadline=None)
@given(size=st.lists(st.integers(1, 9), min_size=2, max_size=3), multiple=st.sampled_from([2, 4]), data=st.data())
def test_padding_marks_what_lies_outside_wherever_it_is_dealt(
    size: list[int], multiple: int, data: st.DataObject
) -> None:
    x = torch.ones(2, 3, *size)
    padding = Padding.of(x, multiple)
    padded = pad_to_multiple(x, multiple)
    assert all(n % multiple == 0 and n - m < multiple for n, m in zip(padded.shape[2:], size, strict=True))
    if padding is None:
        assert padded.shape == x.shape
        return
    assert padding.inside == x[:, 0].numel()
    full, expected = torch.ones_like(padded), padded
    for _ in range({2: 1, 4: 2}[multiple]):
        full, expected, padding = to_lattices(full, 2), to_lattices(expected, 2), padding.dealt(2)
        assert zero_outside_(full.clone(), padding).equal(expected)
    start = data.draw(st.integers(0, full.shape[0] - 1))
    rows = full[start : start + 3].clone()
    assert zero_outside_(rows, padding.rows(start, start + 3)).equal(expected[start : start + 3])


@pytest.mark.parametrize("size", [(8, 12), (5, 6), (9, 3, 10), (4, 8, 4)])
@pytest.mark.parametrize("last", [False, True])
def test_some_rows_are_those_of_all_sub_lattices(size: tuple[int, ...], last: bool) -> None:
    x = torch.randn(2, 3, *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d)
    everything = to_lattices(pad_to_multiple(x, 4), 2)
    for start, stop in ((0, len(everything)), (1, 2), (3, 6)):
        rows = some_lattices(x, 2, range(start, stop), 4)
        assert rows.equal(everything[start:stop])
        assert rows.stride() == everything.stride()


@pytest.mark.parametrize("size", [(5, 8), (9, 10, 7), (1, 2, 3)])
def test_extents_are_those_of_the_mask(size: tuple[int, ...]) -> None:
    padding = Padding.of(torch.zeros(2, 1, *size), 4)
    assert padding is not None
    for moved in (padding, padding.dealt(2), padding.dealt(2).dealt(2), padding.dealt(2).rows(1, 3)):
        for mask, extents in zip(moved.mask[:, 0], moved.extents.tolist(), strict=True):
            expected = torch.zeros_like(mask)
            expected[tuple(slice(length) for length in extents)] = 1
            assert mask.equal(expected)
