from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import UNet

from rarevox.networks.cpu import half_precision
from rarevox.networks.cpu.convolution import Conv3d, conv3d, fused_conv3d, is_slow_alone, use_fast_convolutions
from rarevox.networks.cpu.winograd import convolution as winograd
from tests.bounds import assert_sums, assert_within, least_cosine, network_bound, winograd_bound

FORMATS = (torch.contiguous_format, torch.channels_last_3d)


def parts(convolve, x, weight, bias, direction) -> tuple[torch.Tensor, ...]:
    """The result and the gradients of input and weight; of squares they are what `assert_sums` takes."""
    leaves = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
    y = convolve(*leaves, bias.detach())
    return y, *torch.autograd.grad(y, leaves, direction.to(y.dtype))


def squares(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.detach().double().square() for tensor in tensors]


def doubles(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.detach().double() for tensor in tensors]


def terms(weight: torch.Tensor, direction: torch.Tensor) -> tuple[int, int, int]:
    """Products in a number of the result, with its bias, and of the gradients of input and weight, at most."""
    return weight[0].numel() + 1, weight[:, 0].numel(), direction[:, 0].numel()


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
    x = torch.randn(1, 3, *size).contiguous(memory_format=memory_format)
    weight, bias = torch.randn(4, 3, *(kernel,) * 3), torch.randn(4, requires_grad=True)
    assert is_slow_alone(x, weight)

    def plain(*given: torch.Tensor) -> torch.Tensor:
        return F.conv3d(*given, padding=padding, dilation=dilation)

    y = conv3d(x, weight, bias, (padding,) * 3, (dilation,) * 3)
    direction = torch.randn_like(y)
    (of_bias,) = torch.autograd.grad(y, bias, direction)
    assert_sums(of_bias, *(d.sum((0, 2, 3, 4)) for d in (direction.double(), *squares(direction))), y[:, 0].numel())
    ours = parts(lambda *given: conv3d(*given, (padding,) * 3, (dilation,) * 3), x, weight, bias, direction)
    exact = parts(plain, *doubles(x, weight, bias, direction))
    summed = parts(plain, *squares(x, weight, bias, direction))
    for checked in zip(ours, exact, summed, terms(weight, direction), strict=True):
        assert_sums(*checked)


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
    exact = copy.deepcopy(network).double()
    expected = exact(x.double())
    gradients = torch.autograd.grad(expected.square().sum(), list(exact.parameters()))
    assert use_fast_convolutions(network) is network
    assert list(network.state_dict()) == names
    assert all(isinstance(m, Conv3d) for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    y = network(x)
    assert_within(y, expected, network_bound(network) * max(x.abs().max().item(), expected.abs().max().item()))
    found = torch.autograd.grad(y.square().sum(), list(network.parameters()))
    compared = [(a, b) for a, b in zip(found, gradients, strict=True) if b.norm() > 1e-9 * gradients[0].norm()]
    assert len(compared) > len(found) / 2  # biases before a norm have no gradient but rounding
    for one, other in compared:
        assert F.cosine_similarity(one.double().flatten(), other.flatten(), dim=0) > least_cosine(network)


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
    expected = F.prelu(F.conv3d(*doubles(x, weight), None if bias is None else bias.double()), slope.double())
    if add is not None:
        expected[:, :added] += add
    assert y.data_ptr() == out.data_ptr()
    largest = F.conv3d(*squares(x, weight)).max().sqrt()  # slopes are below 1; bias and sum are one rounding each
    assert_within(y, expected, winograd_bound(16) * (largest + 3 + 6))


SHORT_AXES = pytest.mark.parametrize(
    ("kernel", "stride", "size"),
    [
        *((3, 1, size) for size in ((2, 5, 4), (1, 4, 4), (2, 1, 2), (3, 4, 2))),
        *((5, 1, size) for size in ((2, 4, 4), (3, 4, 4), (4, 4, 4), (5, 1, 4), (1, 1, 4), (6, 5, 5))),
        *((3, 2, size) for size in ((4, 1, 4), (4, 4, 1), (2, 2, 2), (1, 3, 2), (4, 4, 4))),
    ],
)


def on_short_axes(kernel: int, stride: int, size: tuple[int, ...], channels: int) -> tuple:
    """A layer, its input, its plain convolution, a direction, and in float64 its `parts` and their sums of squares."""
    torch.manual_seed(0)
    conv = Conv3d(channels, channels, kernel, stride=stride, padding=kernel // 2)
    x = torch.randn(2, channels, *size).contiguous(memory_format=torch.channels_last_3d).requires_grad_()

    def plain(*given: torch.Tensor) -> torch.Tensor:
        return F.conv3d(*given, stride=stride, padding=kernel // 2)

    direction = torch.randn_like(plain(x, conv.weight, conv.bias))
    tensors = (x, conv.weight, conv.bias, direction)
    return conv, x, direction, parts(plain, *doubles(*tensors)), parts(plain, *squares(*tensors))


@pytest.mark.parametrize("channels", [4, 16])
@SHORT_AXES
def test_gradients_in_bfloat16_are_right_on_short_axes(kernel, stride, size, channels) -> None:
    """oneDNN with AVX512-BF16 reads memory that nobody wrote there: freed blocks full of NaN show it.

    The bound is that of a CPU which rounds every partial sum to bfloat16; with AVX2 alone PyTorch does so tap by tap.
    """
    conv, x, direction, exact, summed = on_short_axes(kernel, stride, size, channels)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        for length in (16, 100, 300, 1000, 3000, 10_000, 30_000, 100_000):
            del [torch.full((length,), float("nan")) for _ in range(30)][:]
        ours = y, *torch.autograd.grad(y, (x, conv.weight), direction.to(y.dtype))
        for checked in zip(ours, exact, summed, terms(conv.weight, direction), strict=True):
            assert_sums(*checked, torch.bfloat16)


@pytest.mark.parametrize("channels", [4, 16])
@SHORT_AXES
def test_the_bound_of_bfloat16_would_show_numbers_from_memory_that_nobody_wrote(kernel, stride, size, channels):
    """The fault planted: numbers of the input's size where the zeros around it should be."""
    conv, x, direction, exact, summed = on_short_axes(kernel, stride, size, channels)
    around = F.pad(torch.zeros_like(x), [kernel // 2] * 6, value=1.0)
    wrong = F.pad(x.detach(), [kernel // 2] * 6) + around * torch.randn_like(around)
    given = doubles(wrong, conv.weight, conv.bias, direction)
    gradient = parts(lambda *tensors: F.conv3d(*tensors, stride=stride), *given)[2]
    with pytest.raises(AssertionError, match="numbers are off"):
        assert_sums(gradient, exact[2], summed[2], terms(conv.weight, direction)[2], torch.bfloat16)


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
            # 2 · 4 · 3 · 3 terms in float32 on both sides; more zeros may be added in another order.
            summed = F.conv3d(x.square(), conv.weight.square(), conv.bias.square(), *plain[2:])
            assert_sums(half_precision.conv3d(x, *plain), F.conv3d(x, *plain), summed, 2 * conv.weight[0].numel())
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        half_precision.conv3d(torch.ones(1, 1, 2, 9, 9), torch.ones(1, 1, 3, 3, 3), None, (1,) * 3, (1,) * 3, (2, 1, 1))
