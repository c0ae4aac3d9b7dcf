"""Wide convolutions as products of spectra: the values and gradients of the plain ones, within their error bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rarevox.networks import SliceWise, TwoPathCNN
from rarevox.networks.cpu import fourier

PLAIN = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
SHAPES = [
    # samples, channels, features, spatial, kernel
    (1, 1, 1, (12, 12), (12, 12)),  # one voxel comes out
    (2, 3, 2, (39, 23), (21, 21)),
    (5, 4, 8, (26, 31), (13, 12)),
    (3, 2, 5, (33, 30), (12, 13)),
    (2, 2, 3, (9, 7, 11), (6, 5, 6)),
]


def bound(length: int, terms: int, one: torch.Tensor, other: torch.Tensor, bits: float) -> float:
    """Of a product of spectra of so many frequencies, summed over so many terms: two transforms and one back, each of
    which errs by at most 4 · eps · log₂ of its length in the norm (a butterfly is a product and a sum of complex
    numbers), and eps for each term of the sum.
    """
    return (3 * 4 * math.log2(length + 1) + terms) * bits * float(one.double().norm() * other.double().norm())


@pytest.mark.parametrize(("samples", "channels", "features", "spatial", "kernel"), SHAPES)
@pytest.mark.parametrize("number", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients(samples, channels, features, spatial, kernel, number):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, channels, *spatial, generator=generator).to(number).requires_grad_()
    weight = torch.randn(features, channels, *kernel, generator=generator).to(number).requires_grad_()
    bias = torch.randn(features, generator=generator).to(number).requires_grad_()
    assert fourier.pays(x, weight)
    y = fourier.convolve(x, weight, bias)
    assert y.dtype == number
    wide = [part.detach().double().requires_grad_() for part in (x, weight, bias)]
    expected = PLAIN[len(spatial)](*wide)
    out = torch.randn(y.shape, generator=generator).to(number)
    found, wanted = torch.autograd.grad(y, (x, weight, bias), out), torch.autograd.grad(expected, wide, out.double())
    # Computed in float32 at least, and rounded once to the own type.
    bits = 2.0**-53 if number == torch.float64 else 2.0**-24
    rounding = {torch.bfloat16: 2.0**-8}.get(number, bits)
    length, terms = x[0, 0].numel(), max(samples, channels, features)
    pairs = [(x, weight), (out, weight), (x, out)]
    for one, other, pair in zip((y, *found[:2]), (expected, *wanted[:2]), pairs, strict=True):
        room = bound(length, terms, *(part.detach() for part in pair), bits) + rounding * other.abs().max()
        assert (one.double() - other).abs().max() <= room + bits * other.abs().max()
    # The bias gets the sum of what reached each feature.
    terms = out[:, 0].numel()
    assert (found[2].double() - wanted[2]).abs().max() <= (terms * bits + rounding) * out.abs().sum()


def test_what_goes_the_plain_way():
    x, weight = torch.zeros(1, 2, 30, 30, requires_grad=True), torch.zeros(2, 2, 12, 12)
    assert fourier.pays(x, weight)
    assert not fourier.pays(x.detach(), weight), "there is no way back"
    with torch.no_grad():
        assert not fourier.pays(x, weight)
    assert not fourier.pays(x, weight[..., :11])
    assert not fourier.pays(x, weight.repeat(5, 1, 1, 1))
    assert not fourier.pays(x[:, :1], weight)
    assert not fourier.pays(x[:0], weight)
    assert not fourier.pays(x[..., :11], weight)
    assert not fourier.pays(x[0], weight)
    assert not fourier.pays(x.double(), weight)
    assert not fourier.pays(x.to("meta"), weight.to("meta"))
    for options in ({"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}):
        layer, plain = fourier.WideConv2d(2, 2, 12, **options), nn.Conv2d(2, 2, 12, **options)
        plain.load_state_dict(layer.state_dict())
        x = torch.randn(1, 2, 30, 30)
        assert torch.equal(layer(x), plain(x)), options


@pytest.mark.parametrize("shape", [(0, 2, 30, 30), (2, 30, 30), (1, 2, 11, 30), (1, 3, 30, 30), (1, 2, 12, 12)])
def test_other_inputs_are_answered_as_by_the_plain_layer(shape):
    layer, plain = fourier.WideConv2d(2, 2, 12), nn.Conv2d(2, 2, 12)
    plain.load_state_dict(layer.state_dict())
    found, expected = [], []
    for network, answers in ((layer, found), (plain, expected)):
        try:
            answers.append(network(torch.ones(shape)).shape)
        except RuntimeError as error:
            answers.append(str(error))
    assert found == expected


@pytest.mark.parametrize("number", [torch.bfloat16, torch.float16])
def test_within_autocast_the_type_is_that_of_the_plain_layer(number):
    layer = fourier.WideConv2d(2, 2, 12)
    with torch.autocast("cpu", number):
        for x in (torch.randn(1, 2, 20, 20), torch.randn(1, 2, 20, 20).to(number)):
            assert layer(x).dtype == number
            assert fourier.pays(x, layer.weight)


def test_a_network_has_the_logits_that_it_has_when_it_is_traced():
    network = SliceWise(TwoPathCNN(in_channels=2, out_channels=3, local_features=4, global_features=6)).eval()
    x = torch.randn(2, 2, 51, 45, 1)
    y = network(x)
    traced = torch.jit.trace(network, x, check_trace=False)
    assert "fft" not in str(traced.inlined_graph)
    # Of the joint layer's ten features; what comes before it is the same to the bit or to a rounding.
    wide = network.network.classifier
    features = torch.full((10, 39, 33), float(y.detach().abs().max()) / float(wide.weight.detach().norm()))
    room = bound(39 * 33, 10, features, wide.weight.detach(), 2.0**-24)
    assert torch.allclose(traced(x), y, atol=room + 2.0**-20 * float(y.detach().abs().max()), rtol=0)


def test_gradients_in_two_orders():
    x = torch.randn(1, 1, 13, 14, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fourier.convolve, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(fourier.convolve, (x, weight), fast_mode=True)
