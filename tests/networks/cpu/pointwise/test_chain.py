"""Chains of 1³ layers: equal to the layers one by one, whatever the sizes, and left alone where they do not apply."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rarevox.networks import DeepMedic, HighResNet
from rarevox.networks.cpu import volumes
from rarevox.networks.cpu.pointwise import chain as pointwise
from rarevox.networks.cpu.pointwise.chain import Layer, applies, chain, layer_of, linear, plain
from rarevox.networks.protocols import NormActPair
from tests.bounds import assert_within, network_bound, random_sum_bound

pytestmark = pytest.mark.skipif(pointwise.kernels() is None, reason="needs Numba")


def layers_of(channels: list[int], seed: int) -> list[Layer]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Layer(
            torch.randn(b, a, generator=generator) / a**0.5,
            torch.randn(b, generator=generator),
            torch.rand(b, generator=generator),
        )
        for a, b in zip(channels, channels[1:], strict=False)
    ]


def one_by_one(x: torch.Tensor, layers: list[Layer], beside: torch.Tensor | float = 0.0) -> torch.Tensor:
    """The formula in float64."""
    y = x.double()
    for number, layer in enumerate(layers):
        y = torch.einsum("oc,bczyx->bozyx", layer.weight.double(), y) + (beside if number == 0 else 0.0)
        y = y + layer.bias.double().view(-1, 1, 1, 1)
        y = torch.where(y > 0, y, y * layer.slope.double().view(-1, 1, 1, 1))
    return y


def bound_of(x: torch.Tensor, layers: list[Layer], beside: torch.Tensor | None = None) -> torch.Tensor:
    """Each layer's sums are off by their rounding, over √Σ term²; slopes are below 1 and magnify nothing."""
    squares = [Layer(layer.weight.square(), layer.bias.square(), layer.slope) for layer in layers]
    largest = one_by_one(x.square(), squares, 0.0 if beside is None else beside.square()).sqrt()
    size = torch.maximum(largest, one_by_one(x, layers, 0.0 if beside is None else beside).abs())
    return sum(random_sum_bound(layer.weight.shape[1] + 2, torch.float32) for layer in layers) * size


@given(
    batch=st.integers(1, 2),
    channels=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    size=st.tuples(*[st.integers(1, 9)] * 3),
    layout=st.sampled_from(["channels first", "channels last", "with room"]),
    seed=st.integers(0, 10**6),
)
def test_a_chain_is_its_layers_one_by_one(batch, channels, size, layout, seed) -> None:
    x = torch.randn(batch, channels[0], *size, generator=torch.Generator().manual_seed(seed))
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last_3d)
    elif layout == "with room":
        room = torch.full((volumes.numbers(tuple(x.shape)),), float("nan"))
        x = volumes.channels_last(tuple(x.shape), room).copy_(x)
    layers = layers_of(channels, seed)
    with torch.no_grad():
        found = chain(x, layers)
    assert found.shape == (batch, channels[-1], *size)
    assert_within(found, one_by_one(x, layers), bound_of(x, layers))


@given(
    factor=st.integers(2, 4),
    blocks=st.tuples(*[st.integers(1, 4)] * 3),
    before=st.integers(0, 5),
    wide=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_coarse_sums_are_those_of_the_block_that_a_voxel_lies_in(factor, blocks, before, wide, seed) -> None:
    size = [n * factor for n in blocks]
    before = min(before, size[0] - 1)
    x, layers = torch.randn(2, 5, size[0] - before, *size[1:]), layers_of([5, wide, 3], seed)
    coarse = torch.randn(2, wide, *blocks)
    whole = F.interpolate(coarse.double(), size=size, mode="nearest")[:, :, before:]
    with torch.no_grad():
        found = chain(x, layers, coarse, factor=factor, before=before)
        sums = chain(coarse, [plain(torch.eye(wide))], in_eights=True)
        again = chain(x, layers, sums, factor=factor, before=before)
    assert_within(found, one_by_one(x, layers, whole), bound_of(x, layers, whole))
    assert torch.equal(found, again)


def test_it_applies_to_float32_volumes_on_the_cpu_without_gradients() -> None:
    x = torch.randn(1, 3, 4, 4, 4)
    assert not applies(x)
    with torch.no_grad():
        assert applies(x)
        assert not applies(x.double())
        assert not applies(x[..., 0])
        with torch.autocast("cpu", torch.bfloat16):
            assert not applies(x)


def test_norm_and_activation_are_folded_in_and_others_are_not() -> None:
    norm = nn.BatchNorm3d(6).eval()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
    x, conv = torch.randn(1, 4, 3, 3, 3), nn.Conv3d(4, 6, 1, bias=False)
    for activation in (nn.ReLU(), nn.PReLU(6)):
        with torch.no_grad():
            layer = layer_of(conv, NormActPair(norm, activation))
            assert layer is not None
            assert_within(chain(x, [layer]), one_by_one(x, [layer]), bound_of(x, [layer]))
            # The norm apart is x · scale + shift once more: some roundings of numbers of the size of both terms.
            expected = activation(norm(conv(x)))
            assert_within(chain(x, [layer]), expected, 2 * random_sum_bound(8, x.dtype) * (3 + expected.abs().max()))
    assert layer_of(conv, NormActPair(norm, nn.GELU())) is None
    assert layer_of(conv, NormActPair(norm.train(), nn.ReLU())) is None
    assert layer_of(nn.Conv3d(4, 6, 3, bias=False), NormActPair(norm.eval(), nn.ReLU())) is None
    biased = nn.Conv3d(4, 2, 1)
    with torch.no_grad():
        layer = linear(biased)
        assert_within(chain(x, [layer]), biased(x), 2 * bound_of(x, [layer]))


@pytest.mark.parametrize(
    "network",
    [
        HighResNet(in_channels=2, out_channels=3, width=8),
        DeepMedic(in_channels=2, out_channels=3),
        DeepMedic(in_channels=2, out_channels=3, low_resolution_factors=(3, 5), channels=(16,) * 8),
        DeepMedic(in_channels=2, out_channels=3, low_resolution_factors=()),
        DeepMedic(in_channels=2, out_channels=3, wide=True),
        DeepMedic(in_channels=2, out_channels=3, preactivation=True),
    ],
)
def test_networks_give_the_same_logits_without_it(network, monkeypatch) -> None:
    x = torch.randn(1, 2, *network.geometry.input_size((15, 18, 15)))
    network.eval()
    with torch.no_grad():
        found = network(x)
        monkeypatch.setattr(pointwise, "kernels", lambda: None)
        expected = network(x)
        bound = 2 * network_bound(network)  # each of the two is off by as much
        assert_within(found, expected, bound * max(x.abs().max().item(), expected.abs().max().item()))
