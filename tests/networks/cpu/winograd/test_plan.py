"""How tiles are shared out, and memory that is used again without being held for ever."""

from __future__ import annotations

import math
import weakref
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.cpu.winograd.job import place_stride
from rarevox.networks.cpu.winograd.plan import Plan, kept_memory, memory_of_pass


@given(tile_bytes=st.integers(1, 600).map(lambda vectors: 32 * vectors), tiles=st.integers(1, 40))
def test_places_hold_their_tiles_in_an_odd_number_of_cache_lines(tile_bytes: int, tiles: int) -> None:
    stride = place_stride(tile_bytes, tiles)
    assert tile_bytes * tiles <= stride < tile_bytes * tiles + 2 * 64
    assert stride % 128 == 64


@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(1, 40)] * 3),
    most=st.integers(0, 100),
    threads=st.integers(1, 64),
)
def test_tiles_go_in_blocks_of_six_and_cover_the_volume(shape: tuple[int, ...], most: int, threads: int) -> None:
    with patch.object(torch, "get_num_threads", lambda: threads):
        plan = Plan(torch.empty(*shape, 8, device="meta"), most)
    assert plan.tiles == shape[0] * math.prod(len(range(0, length, 4)) for length in shape[1:])
    assert plan.group % 6 == 0
    assert 6 <= plan.group <= max(6, most)
    # Two groups or more for a thread, but for rounding up to a block: group < tiles / (2 · threads) + 6.
    assert plan.group == 6 or 2 * threads * plan.group < plan.tiles + 12 * threads


def test_kept_memory_begins_on_a_line_of_the_cache_and_grows() -> None:
    first = kept_memory(1000)
    assert first.data_ptr() % 64 == 0
    assert kept_memory(1000) is first
    assert kept_memory(first.numel() + 1).numel() > first.numel()


def test_memory_of_no_pass_is_the_caller_s_alone() -> None:
    first = memory_of_pass(1000)
    assert first.data_ptr() % 64 == 0
    assert memory_of_pass(1000).data_ptr() != first.data_ptr()
    gone = weakref.ref(first)
    del first
    assert gone() is None


@pytest.fixture
def given_out(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[torch.Tensor]]:
    """What the sums of weights' gradients are formed in, one after another."""
    seen: list[weakref.ref[torch.Tensor]] = []

    def watched(length: int) -> torch.Tensor:
        memory = memory_of_pass(length)
        seen.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(winograd, "memory_of_pass", watched)
    return seen


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("this layer has no gradient")


@pytest.mark.skipif(winograd.kernels() is None, reason="needs Numba")
class TestSumsOfTheWeightsGradient:
    def layers(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        torch.manual_seed(0)
        return torch.randn(1, 16, 6, 6, 6), [torch.randn(16, 16, 3, 3, 3, requires_grad=True) for _ in range(3)]

    def test_they_take_the_same_memory_through_a_pass_and_none_after_it(self, given_out) -> None:
        y, weights = self.layers()
        for weight in weights:
            y = winograd.conv3d(y, weight, 1)
        alive = []
        y.register_hook(lambda _: alive.append(len(given_out)))
        weights[0].register_hook(lambda _: alive.append(sum(one() is not None for one in given_out)))
        y.sum().backward()
        assert alive == [0, 3], "held until the last layer"
        assert len({id(one) for one in given_out}) == 1, "weak references to one object are one"
        assert all(one() is None for one in given_out)

    def test_a_pass_that_fails_gives_it_back_too(self, given_out) -> None:
        x, weights = self.layers()
        y = winograd.conv3d(_Fails.apply(x.requires_grad_()), weights[0], 1)
        with pytest.raises(ValueError, match="no gradient"):
            y.sum().backward()
        assert len(given_out) == 1
        assert given_out[0]() is None

    def test_passes_within_passes_are_right(self, given_out) -> None:
        """As where a block is computed again in the backward pass with an engine of its own."""
        x, weights = self.layers()

        def block(x: torch.Tensor) -> torch.Tensor:
            return winograd.conv3d(winograd.conv3d(x, weights[0], 1), weights[1], 1)

        plain = torch.autograd.grad(winograd.conv3d(block(x), weights[2], 1).sum(), weights)
        x.requires_grad_()
        again = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=True)
        again = winograd.conv3d(again, weights[2], 1)
        again.sum().backward()
        assert all(torch.equal(weight.grad, other) for weight, other in zip(weights, plain, strict=True))
        assert all(one() is None for one in given_out)
