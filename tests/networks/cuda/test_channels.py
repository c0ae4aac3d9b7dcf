"""Weights widened with zeros: the same numbers, and zeros after them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rarevox.networks.cuda.channels import aligned, pay, widened

CASES = {"one part": ((6,), (8,)), "two parts": ((3, 3), (8, 4)), "no zeros before": ((6,), (6,))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_convolution_is_the_same_with_zeros_after_its_channels(name, dims):
    real, widths = CASES[name]
    torch.manual_seed(0)
    convolve = F.conv2d if dims == 2 else F.conv3d
    parts = [torch.randn(2, channels, *(5,) * dims, dtype=torch.float64) for channels in real]
    weight = torch.randn(5, sum(real), *(3,) * dims, dtype=torch.float64, requires_grad=True)
    wide = [F.pad(part, (0, 0) * dims + (0, width - part.shape[1])) for part, width in zip(parts, widths, strict=True)]
    y = convolve(torch.cat(wide, 1), widened(weight, widths, aligned(5)))
    expected = convolve(torch.cat(parts, 1), weight)
    assert y.shape[1] == 8 and not y[:, 5:].any()
    torch.testing.assert_close(y[:, :5], expected, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(expected)
    (found,) = torch.autograd.grad(y, weight, F.pad(g, (0, 0) * dims + (0, 3), value=3.0))
    torch.testing.assert_close(found, torch.autograd.grad(expected, weight, g)[0], rtol=1e-12, atol=1e-12)


def test_weights_that_fit_are_left_alone():
    weight = torch.randn(16, 8, 3, 3, 3)
    assert widened(weight, (8,), 16) is weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_the_cpu_nothing_is_widened(dtype):
    with torch.autocast("cpu", torch.bfloat16):
        assert not pay(torch.zeros(1, 4, 4, 4, 4, dtype=dtype))
