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


def bound(x: torch.Tensor, weight: torch.Tensor, bits: float = 2.0**-23) -> float:
    """Three transforms and a product: each transform errs by at most a few eps · log₂ of its length, in the norm."""
    return (
        8 * bits * math.log2(x[0, 0].numel() + 1) * float(x.detach().double().norm() * weight.detach().double().norm())
    )


@pytest.mark.parametrize(("samples", "channels", "features", "spatial", "kernel"), SHAPES)
@pytest.mark.parametrize("number", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients(samples, channels, features, spatial, kernel, number):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, channels, *spatial, generator=generator).to(number).requires_grad_()
    weight = torch.randn(features, channels, *kernel, generator=generator).to(number).requires_grad_()
    bias = torch.randn(features, generator=generator).to(number).requires_grad_()
    assert fourier.pays(x, weight)
    y = fourier.convolve(x, weight, bias)
    with torch.no_grad():  # sample by sample
        assert torch.allclose(fourier.convolve(x, weight, bias), y, atol=bound(x, weight), rtol=2.0**-7)
    assert y.dtype == number
    wide = [part.detach().double().requires_grad_() for part in (x, weight, bias)]
    expected = PLAIN[len(spatial)](*wide)
    out = torch.randn(y.shape, generator=generator).to(number)
    found, wanted = torch.autograd.grad(y, (x, weight, bias), out), torch.autograd.grad(expected, wide, out.double())
    # Results are computed in float32 and rounded once to their own type.
    rounding = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-23, torch.float64: 2.0**-50}[number]
    bits = 2.0**-50 if number == torch.float64 else 2.0**-23
    pairs = [(x, weight), (out, weight), (x, out), (out, torch.ones(out[:1, :1].numel() * samples))]
    for one, other, of in zip((y, *found), (expected, *wanted), pairs, strict=True):
        error = (one.double() - other).abs().max()
        assert error <= bound(x if of[0].ndim < 3 else of[0], of[1], bits) + 2 * rounding * other.abs().max()


def test_what_goes_the_plain_way():
    x, weight = torch.zeros(1, 2, 30, 30), torch.zeros(2, 2, 12, 12)
    assert fourier.pays(x, weight)
    assert not fourier.pays(x, weight[..., :11])
    assert not fourier.pays(x, weight.repeat(5, 1, 1, 1))
    assert not fourier.pays(x.to("meta"), weight.to("meta"))
    for options in ({"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}):
        layer, plain = fourier.WideConv2d(2, 2, 12, **options), nn.Conv2d(2, 2, 12, **options)
        plain.load_state_dict(layer.state_dict())
        x = torch.randn(1, 2, 30, 30)
        assert torch.equal(layer(x), plain(x)), options


def test_a_network_has_the_logits_that_it_has_when_it_is_traced():
    network = SliceWise(TwoPathCNN(in_channels=2, out_channels=3, local_features=4, global_features=6)).eval()
    x = torch.randn(2, 2, 51, 45, 1)
    with torch.no_grad():
        y = network(x)
        traced = torch.jit.trace(network, x)
        assert "fft" not in str(traced.inlined_graph)
        assert torch.allclose(traced(x), y, atol=1e-4 * float(y.abs().max()))


def test_gradients_in_two_orders():
    x = torch.randn(1, 1, 13, 14, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fourier.convolve, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(fourier.convolve, (x, weight), fast_mode=True)
