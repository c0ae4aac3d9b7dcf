"""Batch norm in training as kernels against PyTorch's own in float64: under Triton's interpreter, and on a GPU."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn

from rarevox.networks.cuda import norm as fused
from tests.bounds import assert_within, sum_bound, unit_roundoff
from tests.interpreted import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"


def kernels(test):
    """A test of kernels: under the interpreter, or on a GPU."""
    if INTERPRETED:
        return test
    test = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test)
    return pytest.mark.gpu(test)


FLOAT = unit_roundoff(torch.float32)
# The interpreter cuts off what bfloat16 has no bits for.
ROUNDED = {torch.float32: 0.0, torch.float16: 1.0, torch.bfloat16: 2.0}


class Case(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    activation: str = "relu"
    masked: bool = False
    level: float = 1.0
    momentum: float = 0.1
    epsilon: float = 1e-5


CASES = {
    "16 channels": Case((2, 16, 5, 6, 7)),
    "bfloat16": Case((2, 16, 5, 6, 7), torch.bfloat16, masked=True),
    "float16": Case((2, 16, 5, 6, 7), torch.float16, "prelu"),
    "several tiles a program": Case((2, 32, 12, 11, 10), masked=True),
    "channels that are no power of two": Case((1, 30, 7, 6, 9), torch.bfloat16, "prelu", masked=True),
    "one slope": Case((2, 5, 4, 4, 5), activation="one slope"),
    "two axes": Case((2, 24, 9, 13), activation="prelu", masked=True),
    "one channel": Case((2, 1, 4, 5, 6)),
    "mean far from zero": Case((2, 8, 12, 9, 10), level=1000.0, masked=True),
    "two voxels": Case((2, 4, 1, 1, 1), epsilon=0.1),
    "one voxel inside": Case((1, 4, 1, 1, 3), masked=True),
    "momentum 1": Case((2, 4, 3, 4, 5), momentum=1.0, epsilon=0.3),
    "momentum 0": Case((2, 4, 3, 4, 5), momentum=0.0),
    "150 channels": Case((1, 150, 3, 4, 5), activation="prelu"),
}


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def layers(case):
    """A norm with weights that are not those it is born with, and the activation."""
    channels = case.shape[1]
    norm = (nn.BatchNorm2d if len(case.shape) == 4 else nn.BatchNorm3d)(
        channels, eps=case.epsilon, momentum=case.momentum
    )
    with torch.no_grad():
        signs = torch.tensor([1.0, -1.0]).repeat(channels)[:channels]
        norm.weight.copy_(torch.linspace(0.5, 1.5, channels) * signs)
        norm.bias.copy_(torch.linspace(-0.5, 0.5, channels))
        norm.running_mean.copy_(torch.linspace(-1, 1, channels))
        norm.running_var.copy_(torch.linspace(0.5, 2, channels))
    if case.activation == "relu":
        return norm.to(DEVICE), nn.ReLU()
    activation = nn.PReLU(1 if case.activation == "one slope" else channels)
    with torch.no_grad():
        activation.weight.copy_(torch.linspace(-0.1, 0.5, activation.weight.numel()))
    return norm.to(DEVICE), activation.to(DEVICE)


def volumes(case):
    """Volume, gradient of the result, and mask: the last places of the last two axes lie outside."""
    torch.manual_seed(0)
    spread = torch.linspace(0.5, 3, case.shape[1]).view(1, -1, *(1,) * (len(case.shape) - 2))
    x = channels_last((torch.randn(case.shape) * spread + case.level).to(case.dtype))
    g = channels_last(torch.randn(case.shape).to(case.dtype))
    mask = None
    if case.masked:
        mask = torch.zeros(case.shape[0], 1, *case.shape[2:], dtype=case.dtype)
        mask[..., : max(1, case.shape[-2] - 1), : max(1, case.shape[-1] - 2)] = 1
    return x.to(DEVICE), g.to(DEVICE), None if mask is None else mask.to(DEVICE)


def rows(x, mask):
    """Voxels inside, (V, C), in float64."""
    flat = x.double().movedim(1, -1).flatten(0, -2)
    return flat if mask is None else flat[mask.flatten() > 0]


class Peer:
    """PyTorch's batch norm of the voxels inside, in float64, and how far float32 may be from it."""

    def __init__(self, case, x, g, mask, norm, activation):
        self.x, self.g = rows(x, mask).requires_grad_(), rows(g, mask)
        self.count = len(self.x)
        self.norm = nn.BatchNorm1d(case.shape[1], eps=case.epsilon, momentum=case.momentum).double().to(DEVICE)
        self.norm.load_state_dict(norm.state_dict())
        self.activation = copy.deepcopy(activation).double()
        if self.count == 1:  # which PyTorch refuses: no distance, no variance
            a = self.norm.bias.expand_as(self.x) + 0 * self.x
        else:
            a = self.norm(self.x)
        self.y = self.activation(a)
        self.y.backward(self.g)
        self._bounds(a.detach())

    def _bounds(self, a):
        """Of statistics: sums in float32 in any order, of distances to a pivot within a deviation of the mean."""
        x, norm = self.x.detach(), self.norm
        sums = sum_bound(self.count + 8, torch.float32)
        self.mean, self.var = x.mean(0), x.var(0, correction=0)
        inverse = (self.var + norm.eps).rsqrt()
        gamma = norm.weight.detach().abs()
        self.of_mean = 2 * sums * self.var.sqrt() + 3 * FLOAT * self.mean.abs()
        self.of_var = 2 * sums * self.var + self.of_mean.square()
        share = 0.5 * self.of_var * inverse.square() + 8 * FLOAT  # of 1 / √(var + ε), relative
        normed = (x - self.mean).abs() * inverse
        of_normed = self.of_mean * inverse + normed * share
        self.of_a = gamma * of_normed + 8 * FLOAT * (gamma * normed + norm.bias.detach().abs())
        # Beside zero the activation may take the other side.
        flipped = (a.abs() <= self.of_a).double() * self.g.abs() * 2
        reached = self.g.abs() + flipped
        self.of_bias = sums * reached.sum(0) + flipped.sum(0)
        self.of_weight = (sums * reached * normed + reached * of_normed + flipped * normed).sum(0)
        self.of_slope = (sums * self.g.abs() * a.abs() + self.g.abs() * self.of_a + flipped * self.of_a).sum(0)
        bias_size, weight_size = reached.sum(0) / self.count, (reached * normed).sum(0) / self.count
        inner = flipped + (self.of_bias + 4 * FLOAT * reached.sum(0)) / self.count
        inner = inner + of_normed * weight_size + normed * self.of_weight / self.count
        size = reached + bias_size + normed * weight_size
        self.of_x = gamma * inverse * (inner + (share + 8 * FLOAT) * size)


def whole(values, like, mask):
    """(V, C) as a volume, zero outside."""
    flat = torch.zeros(like.numel() // like.shape[1], like.shape[1], dtype=torch.float64, device=like.device)
    flat[slice(None) if mask is None else mask.flatten() > 0] = values.detach()
    return flat.view(like.shape[0], *like.shape[2:], -1).movedim(-1, 1)


@kernels
@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_running_statistics(name):
    case = CASES[name]
    x, g, mask = volumes(case)
    norm, activation = layers(case)
    peer = Peer(case, x, g, mask, norm, activation)
    if mask is not None:  # what lies outside counts nowhere
        x = channels_last(torch.where(mask > 0, x, torch.full_like(x, float("nan"))))
    x.requires_grad_()
    y = fused.norm_act(x, norm, activation, mask, None if mask is None else peer.count)
    assert y.dtype == case.dtype and y.stride() == x.stride()
    y.backward(g)
    unit = ROUNDED[case.dtype] * unit_roundoff(case.dtype)
    assert_within(y, whole(peer.y, y, mask), whole(peer.of_a + unit * peer.y.abs(), y, mask))
    assert x.grad.stride() == x.stride()
    gradient = peer.x.grad
    assert_within(x.grad, whole(gradient, y, mask), whole(peer.of_x + unit * gradient.abs(), y, mask))
    if peer.count > 1:
        assert_within(norm.weight.grad, peer.norm.weight.grad, peer.of_weight)
    assert_within(norm.bias.grad, peer.norm.bias.grad, peer.of_bias)
    if case.activation != "relu":
        of_slope = peer.of_slope if case.activation == "prelu" else peer.of_slope.sum()[None]
        assert_within(activation.weight.grad, peer.activation.weight.grad, of_slope + 4 * FLOAT)
    if peer.count > 1:
        assert norm.num_batches_tracked == 1
        means, variances = peer.norm.running_mean, peer.norm.running_var
        assert_within(norm.running_mean, means, case.momentum * peer.of_mean + 4 * FLOAT * (1 + means.abs()))
        unbiased = peer.count / (peer.count - 1)
        of_var = case.momentum * peer.of_var * unbiased
        assert_within(norm.running_var, variances, of_var + 4 * FLOAT * (2 + variances))
    else:
        assert norm.running_var.tolist() == pytest.approx((0.9 * peer.norm.running_var).tolist(), rel=4 * FLOAT)


@kernels
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_added_may_be_a_crop_of_fewer_channels(channels, dims):
    torch.manual_seed(0)
    shape = (2, 8, *(4, 5, 6)[-dims:])
    x = channels_last(torch.randn(shape)).to(DEVICE)
    larger = channels_last(torch.randn(2, channels, *(n + 4 for n in shape[2:]))).to(DEVICE).requires_grad_()
    crop = larger[(..., *(slice(2, -2),) * dims)]
    norm, activation = layers(Case(shape, activation="prelu"))
    alone = fused.norm_act(x, norm, activation)
    y = fused.norm_act(x, norm, activation, add=crop)
    # One more rounding on both sides, and the last one of ``alone`` where a device multiplies and adds at once.
    size = alone[:, :channels].abs() + crop.abs()
    assert_within(y[:, :channels], alone[:, :channels] + crop, 3 * FLOAT * size)
    assert torch.equal(y[:, channels:], alone[:, channels:])
    g = torch.randn(shape).to(DEVICE)
    y.backward(g)
    expected = torch.zeros_like(larger)
    expected[(..., *(slice(2, -2),) * dims)] = g[:, :channels]
    assert torch.equal(larger.grad, expected)


@kernels
@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_channels_of_zeros_after_the_real_ones_stay_zero(activation):
    case = Case((2, 6, 3, 4, 5), torch.bfloat16, activation, epsilon=0.0)
    x, g, _ = volumes(case)
    norm, act = layers(case)
    expected_norm, expected_act = copy.deepcopy(norm), copy.deepcopy(act)
    x.requires_grad_()
    expected = fused.norm_act(x, expected_norm, expected_act)
    expected.backward(g)
    wide = channels_last(torch.nn.functional.pad(x.detach(), (0, 0) * 3 + (0, 2))).requires_grad_()
    y = fused.norm_act(wide, norm, act)
    y.backward(channels_last(torch.nn.functional.pad(g, (0, 0) * 3 + (0, 2), value=7.0)))
    # Tiles of eight channels hold other voxels than those of six, so that sums are put together in another order: of n
    # terms they may differ by n roundings of the sum of their sizes. In bfloat16 that may be a step of a result.
    voxels, most = x.numel() // x.shape[1], float(x.detach().float().abs().amax())
    normed = (x.detach().float() - x.detach().float().mean((0, 2, 3, 4), keepdim=True)).abs() + 1
    for found, other in ((y, expected), (wide.grad, x.grad)):
        assert_within(found[:, :6], other, 2.0**-7 * other.abs() + voxels * FLOAT * most)
    assert not y[:, 6:].any() and not wide.grad[:, 6:].any()
    size = 10 * (g.float().abs() * normed).sum((0, 2, 3, 4)).amax()  # the deviations of the channels are 0.1 and more
    layers_of = ([*norm.parameters(), *act.parameters()], [*expected_norm.parameters(), *expected_act.parameters()])
    for one, other in zip(*layers_of, strict=True):
        assert_within(one.grad, other.grad, voxels * FLOAT * size)
    for one, other in zip(norm.buffers(), expected_norm.buffers(), strict=True):
        assert_within(one.double(), other.double(), torch.as_tensor(voxels * FLOAT * (1 + most) ** 2))


@kernels
def test_what_is_not_finite_is_as_in_pytorch():
    x = channels_last(torch.randn(2, 2, 3, 3, 3)).to(DEVICE)
    x[0, 1, 1, 1, 1] = float("inf")
    norm, activation = layers(Case((2, 2, 3, 3, 3)))
    y = fused.norm_act(x, norm, activation)
    peer = nn.BatchNorm3d(2).to(DEVICE)
    expected = peer(x)
    assert torch.equal(y[:, 1].isnan(), expected[:, 1].isnan()) and y[:, 0].isfinite().all()
    assert not norm.running_mean[1].isfinite() and norm.running_mean[0].isfinite()


@kernels
def test_the_same_numbers_every_time():
    case = CASES["several tiles a program"]
    x, g, mask = volumes(case)
    results = []
    for _ in range(2):
        norm, activation = layers(case)
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        fused.norm_act(leaf, norm, activation, mask, int(mask.sum())).backward(g)
        results.append([leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_var])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@kernels
def test_without_running_statistics_and_without_gradients():
    x, _, _ = volumes(CASES["16 channels"])
    norm, activation = nn.BatchNorm3d(16, track_running_stats=False).to(DEVICE), nn.ReLU()
    with torch.no_grad():
        y = fused.norm_act(x, norm, activation)
    assert_within(y, activation(norm(x)), 2 * sum_bound(428, torch.float32) * (1 + x.abs()))


@kernels
def test_running_statistics_count_as_changed():
    """A backward pass that needs the values of before is refused by PyTorch, and caches see a new version."""
    x, _, _ = volumes(CASES["16 channels"])
    norm, activation = layers(CASES["16 channels"])
    before = norm.running_mean._version
    fused.norm_act(x, norm, activation)
    assert norm.running_mean._version > before


@kernels
@pytest.mark.parametrize("masked", [False, True])
def test_second_order_gradients_are_those_of_pytorch(masked):
    case = Case((2, 3, 3, 4, 2), activation="prelu", masked=masked)
    x, g, mask = volumes(case)
    norm, activation = layers(case)
    count = None if mask is None else int(mask.sum())
    inside = torch.ones_like(x[:, :1]) if mask is None else mask

    def penalty(x, y, weights):
        found = torch.autograd.grad((y * g * inside).sum(), [x, *weights], create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in found), [x, *weights])

    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    weights = [norm.weight, norm.bias, activation.weight]
    second = penalty(leaf, fused.norm_act(leaf, norm, activation, mask, count), weights)
    exact = x.double().requires_grad_()
    doubles = [one.detach().double().requires_grad_() for one in weights]
    flat = exact.movedim(1, -1).flatten(0, -2)[inside.flatten() > 0]
    a = nn.functional.batch_norm(flat, None, None, doubles[0], doubles[1], training=True, eps=case.epsilon)
    values = torch.where(a > 0, a, a * doubles[2])
    places = (torch.nonzero(inside.flatten())[:, 0],)
    y = torch.zeros(x.numel() // 3, 3, dtype=torch.float64, device=x.device).index_put(places, values)
    y = y.view(x.shape[0], *x.shape[2:], 3).movedim(-1, 1)
    g, inside = g.double(), inside.double()
    expected = penalty(exact, y, doubles)
    for one, other in zip(second, expected, strict=True):
        # Sums of 48 voxels over sums of 48, of products of up to ten rounded factors.
        assert_within(one, other, 10 * sum_bound(48 * 2, torch.float32) * (other.abs().max() + 1) * 8)
