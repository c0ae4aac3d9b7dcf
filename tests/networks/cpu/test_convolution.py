from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import UNet

from rarevox.networks.cpu import half_precision
from rarevox.networks.cpu.convolution import Conv3d, conv3d, fused_conv3d, is_slow_alone, use_fast_convolutions
from rarevox.networks.cpu.winograd import convolution as winograd

FORMATS = (torch.contiguous_format, torch.channels_last_3d)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("size", "kernel", "padding", "dilation"),
    [
        ((8, 7, 6), 3, 1, 1),
        ((9, 7, 6), 3, 1, 1),
        ((9, 7, 8), 3, 0, 1),
        ((11, 8, 9), 3, 2, 2),
        ((3, 3, 3), 3, 0, 1),
    ],
)
def test_slabs_give_what_the_plain_convolution_gives(size, kernel, padding, dilation, memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, *size).contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(4, 3, *(kernel,) * 3, requires_grad=True)
    bias = torch.randn(4, requires_grad=True)
    assert is_slow_alone(x, weight)
    ours = conv3d(x, weight, bias, (padding,) * 3, (dilation,) * 3)
    theirs = F.conv3d(x, weight, bias, padding=padding, dilation=dilation)
    direction = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        torch.autograd.grad(ours, (x, weight, bias), direction),
        torch.autograd.grad(theirs, (x, weight, bias), direction),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_only_small_single_samples_on_the_cpu_are_cut() -> None:
    weight = torch.empty(16, 16, 3, 3, 3)
    assert is_slow_alone(torch.empty(1, 16, 32, 32, 32), weight)
    assert not is_slow_alone(torch.empty(1, 16, 32, 32, 32), torch.empty(3, 16, 1, 1, 1))
    assert not is_slow_alone(torch.empty(2, 16, 32, 32, 32), weight)
    assert not is_slow_alone(torch.empty(1, 16, 36, 36, 8), weight)
    assert not is_slow_alone(torch.empty(1, 16, 32, 32, 32, dtype=torch.float64), weight)
    assert not is_slow_alone(torch.empty(1, 16, 32, 32, 32, device="meta"), weight)


def test_the_fast_kernel_is_the_one_that_runs() -> None:
    layer, x = Conv3d(4, 4, 3, padding=1), torch.randn(1, 4, 16, 16, 16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(x)
    names = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in names or not torch.backends.mkldnn.is_available()
    assert "aten::slow_conv3d_forward" not in names


def test_a_layer_with_other_options_is_torch_s() -> None:
    x = torch.randn(1, 4, 8, 8, 8)
    for options in ({"stride": 2}, {"groups": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}):
        torch.manual_seed(1)
        ours = Conv3d(4, 4, 3, **options)
        torch.manual_seed(1)
        assert torch.equal(ours(x), torch.nn.Conv3d(4, 4, 3, **options)(x))


def test_a_network_from_elsewhere_gives_the_same_with_fast_convolutions() -> None:
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(16, 32), strides=(2,), num_res_units=2)
    x = torch.randn(2, 1, 32, 24, 32)
    names = list(network.state_dict())
    expected = network(x)
    gradients = torch.autograd.grad(expected.square().sum(), list(network.parameters()))
    assert use_fast_convolutions(network) is network
    assert list(network.state_dict()) == names
    assert all(isinstance(m, Conv3d) for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    y = network(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(torch.autograd.grad(y.square().sum(), list(network.parameters())), gradients, strict=True):
        assert (one - other).norm() <= 1e-2 * other.norm() + 1e-2  # biases before a norm have no gradient but rounding


def test_convolutions_that_are_something_else_stay_what_they_are() -> None:
    class Own(torch.nn.Conv3d):
        pass

    network = torch.nn.Sequential(Own(1, 1, 3), torch.nn.ConvTranspose3d(1, 1, 3), torch.nn.Conv2d(1, 1, 3))
    kinds = [type(module) for module in network]
    use_fast_convolutions(network)
    assert [type(module) for module in network] == kinds


@pytest.mark.skipif(winograd.kernels() is None, reason="Numba is not installed")
@pytest.mark.parametrize("added", [None, 5, 8, 16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_bias_slope_and_sum_are_those_of_the_layers_after_it(with_bias, added) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 16, 18, 18, 18), torch.randn(16, 16, 3, 3, 3)
    bias, slope = torch.randn(16) if with_bias else None, torch.rand(16)
    add = None if added is None else torch.randn(1, added, 16, 16, 16)
    out = torch.empty((1, 16, 16, 16, 16), memory_format=torch.channels_last_3d)
    with torch.no_grad():
        y = fused_conv3d(x, weight, 0, bias=bias, slope=slope, add=add, out=out)
    expected = F.prelu(F.conv3d(x, weight, bias), slope)
    if add is not None:
        expected[:, :added] += add
    assert y.data_ptr() == out.data_ptr()
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize(
    ("kernel", "stride", "size"),
    [
        *((3, 1, size) for size in ((2, 5, 4), (1, 4, 4), (2, 1, 2), (3, 4, 2))),
        *((5, 1, size) for size in ((2, 4, 4), (3, 4, 4), (4, 4, 4), (5, 1, 4), (1, 1, 4), (6, 5, 5))),
        *((3, 2, size) for size in ((4, 1, 4), (4, 4, 1), (2, 2, 2), (1, 3, 2), (4, 4, 4))),
    ],
)
def test_gradients_in_bfloat16_are_right_on_short_axes(kernel, stride, size, channels) -> None:
    """oneDNN with AVX512-BF16 reads memory that nobody wrote there: freed blocks full of NaN show it."""
    torch.manual_seed(0)
    conv = Conv3d(channels, channels, kernel, stride=stride, padding=kernel // 2)
    x = torch.randn(2, channels, *size).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    exact = F.conv3d(x, conv.weight, conv.bias, stride=stride, padding=kernel // 2)
    direction = torch.randn_like(exact)
    expected = torch.autograd.grad(exact, (x, conv.weight), direction)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        for length in (16, 100, 300, 1000, 3000, 10_000, 30_000, 100_000):
            del [torch.full((length,), float("nan")) for _ in range(30)][:]
        torch.testing.assert_close(y.float(), exact, atol=0.1, rtol=0.05)
        for ours, theirs in zip(torch.autograd.grad(y, (x, conv.weight), direction.to(y.dtype)), expected, strict=True):
            assert (ours - theirs).abs().max() <= 0.02 * theirs.abs().max()


def test_lengthened_axes_give_what_the_plain_convolution_gives(monkeypatch) -> None:
    monkeypatch.setattr(half_precision, "is_half_on_cpu", lambda x: True)
    torch.manual_seed(0)
    for size in itertools.product((1, 2, 3), repeat=3):
        for options in (
            {"padding": 1},
            {"padding": (1, 0, 2)},
            {"padding": 1, "stride": (2, 1, 2)},
            {"padding": 1, "groups": 2},
        ):
            conv = torch.nn.Conv3d(4, 4, (3, 1, 3), **options)
            x = torch.randn(2, 4, *size)
            plain = (conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
            torch.testing.assert_close(half_precision.conv3d(x, *plain), F.conv3d(x, *plain))
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        half_precision.conv3d(torch.ones(1, 1, 2, 9, 9), torch.ones(1, 1, 3, 3, 3), None, (1,) * 3, (1,) * 3, (2, 1, 1))
