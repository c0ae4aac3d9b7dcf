from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rarevox.networks import HighResNet
from rarevox.networks.cpu import ops
from rarevox.networks.cpu.norm import convolution as training
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.lattices.deal import pad_to_multiple
from rarevox.networks.lattices.padding import Layout, Padding
from rarevox.networks.protocols import NormActPair
from tests.bounds import assert_within, least_cosine, unit_roundoff, winograd_bound

pytestmark = pytest.mark.skipif(winograd.kernels() is None, reason="Numba is not installed")
SIZE = (16, 20, 16)


def normed_convolution(
    x: torch.Tensor,
    norm: nn.Module,
    activation: nn.Module,
    weight: torch.Tensor,
    identity: torch.Tensor | None = None,
    padding: Padding | None = None,
) -> torch.Tensor:
    """`rarevox.networks.cpu.ops.norm_act_conv` where the kernels take it, with a weight that is no module's."""
    assert training.fits(x, NormActPair(norm, activation), weight, identity, first(weight, identity))
    conv = nn.Conv3d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
    conv.get_parameter = lambda name: weight  # type: ignore[method-assign, assignment]
    return ops.norm_act_conv(x, NormActPair(norm, activation), conv, Layout(padding=padding), identity)


def first(weight: torch.Tensor, identity: torch.Tensor | None) -> int:
    """The first of the channels that the identity is added to."""
    return 0 if identity is None else (weight.shape[0] - identity.shape[1]) // 2


def norm_and_activation(channels: int, activation: str, momentum: float | None = 0.1) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    norm = nn.BatchNorm3d(channels, momentum=momentum)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias, 0, 0.5)
    slopes = {"relu": None, "prelu": channels, "one slope": 1}[activation]
    return norm, nn.ReLU() if slopes is None else nn.PReLU(slopes)


def rounding_of(norm: nn.Module, x: torch.Tensor) -> float:
    """How far a normed value may be off: x · scale + shift, with few roundings of its two terms, which may cancel."""
    scale = norm.weight.detach() / (x.detach().transpose(0, 1).flatten(1).var(1) + norm.eps).sqrt()
    return 8 * unit_roundoff(x.dtype) * (x.abs().max() * scale.abs().max() + norm.bias.abs().max()).item()


def off_the_corner(x: torch.Tensor, norm: nn.BatchNorm3d) -> torch.Tensor:
    """``x`` with no normed value so near zero that rounding puts it on the other side, where gradients differ."""
    training = copy.deepcopy(norm).double().train()
    near = 2 * rounding_of(norm, x)
    for _ in range(3):
        normed = training(x.double())
        x = torch.where(normed.abs() < near, x + 4 * near * x.std(), x)
    assert training(x.double()).abs().min() > near / 2
    return x


def assert_close(ours: torch.Tensor | None, exact: torch.Tensor, tolerance: float) -> None:
    """Every number within ``tolerance`` of the largest."""
    assert ours is not None
    assert_within(ours, exact, tolerance * exact.abs().max())


def tolerance_of(norm: nn.BatchNorm3d, x: torch.Tensor, weight: torch.Tensor) -> float:
    """Of values and gradients over the largest: Winograd's rounding and the norm's.

    The parts of a norm's gradient bring them in up to three times, for which the largest has room: among thousands of
    sums it is four times √Σ term², for which the bounds are.
    """
    voxels = x[:, 0].numel() // 4**3
    winograd_s = max(winograd_bound(max(weight.shape[:2])), winograd_bound(voxels, of_weights=True))
    return winograd_s + rounding_of(norm, x)


@pytest.mark.parametrize("activation", ["relu", "prelu", "one slope"])
@pytest.mark.parametrize(("channels", "added"), [((16, 16), None), ((16, 16), 16), ((24, 40), 24), ((16, 17), None)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_values_gradients_and_statistics_are_those_of_the_separate_layers(activation, channels, added, momentum):
    norm, act = norm_and_activation(channels[0], activation, momentum)
    # A mean far from zero must not swallow the variance.
    x = off_the_corner(torch.randn(2, channels[0], *SIZE) * 0.5 + 30, norm).requires_grad_()
    tolerance = tolerance_of(norm, x, torch.empty(channels[1], channels[0]))
    weight = torch.randn(channels[1], channels[0], 3, 3, 3, requires_grad=True)
    identity = None if added is None else torch.randn(2, added, *SIZE, requires_grad=True)
    exact_norm, exact_act = norm_and_activation(channels[0], activation, momentum)
    exact_norm, exact_act = exact_norm.double(), exact_act.double()
    leaves = [x, weight, *norm.parameters(), *act.parameters(), *([] if identity is None else [identity])]
    y = normed_convolution(x, norm, act, weight, identity)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in (x, weight)]
    z = F.conv3d(exact_act(exact_norm(exact_leaves[0])), exact_leaves[1], padding=1)
    exact_leaves += [*exact_norm.parameters(), *exact_act.parameters()]
    if identity is not None:
        exact_leaves.append(identity.detach().double().requires_grad_())
        before = (channels[1] - added) // 2
        z = z + F.pad(exact_leaves[-1], [0] * 6 + [before, channels[1] - added - before])
    assert_close(y, z, tolerance)
    direction = torch.randn(z.shape)
    gradients = torch.autograd.grad(y, leaves, direction)
    exact = torch.autograd.grad(z, exact_leaves, direction.double())
    for one, other in zip(gradients, exact, strict=True):
        assert_close(one, other, tolerance)
    for one, other in zip(norm.buffers(), exact_norm.buffers(), strict=True):
        assert_close(one, other, tolerance)


def test_what_lies_outside_stays_out() -> None:
    norm, act = norm_and_activation(16, "prelu")
    exact_norm, exact_act = norm_and_activation(16, "prelu")
    inside = off_the_corner(torch.randn(2, 16, 15, 18, 13) + 3, norm)
    padding = Padding.of(inside, 4)
    x = pad_to_multiple(inside, 4).requires_grad_()
    leaf = inside.clone().requires_grad_()
    weight = torch.randn(16, 16, 3, 3, 3, requires_grad=True)
    y = normed_convolution(x, norm, act, weight, x, padding)
    z = F.conv3d(exact_act(exact_norm(leaf)), weight, padding=1) + leaf
    places = tuple(slice(length) for length in (2, 16, 15, 18, 13))
    tolerance = tolerance_of(norm, inside, weight)
    assert_close(y[places], z, tolerance)
    assert not outside(y, places).any()
    direction = torch.randn(y.shape)
    ours = torch.autograd.grad(y, [x, weight, *norm.parameters(), *act.parameters()], direction)
    exact = torch.autograd.grad(z, [leaf, weight, *exact_norm.parameters(), *exact_act.parameters()], direction[places])
    assert_close(ours[0][places], exact[0], tolerance)
    for one, other in zip(ours[1:], exact[1:], strict=True):
        assert_close(one, other, tolerance)
    assert not outside(ours[0], places).any()
    assert_close(norm.running_var, exact_norm.running_var, tolerance)


def outside(volume: torch.Tensor, places: tuple[slice, ...]) -> torch.Tensor:
    """``volume`` with zeros at the places."""
    volume = volume.detach().clone()
    volume[places] = 0
    return volume


def test_frozen_parameters_get_no_gradient() -> None:
    norm, act = norm_and_activation(16, "relu")
    x, weight = torch.randn(1, 16, *SIZE, requires_grad=True), torch.randn(16, 16, 3, 3, 3)
    norm.requires_grad_(False)
    normed_convolution(x, norm, act, weight).sum().backward()
    assert x.grad is not None
    assert weight.grad is None
    assert norm.weight.grad is None
    y = normed_convolution(x.detach(), norm, act, weight.requires_grad_())
    y.sum().backward()
    assert weight.grad is not None


def test_elsewhere_the_separate_layers_are_taken() -> None:
    norm, act = norm_and_activation(16, "relu")
    x, weight = torch.randn(1, 16, *SIZE), torch.randn(16, 16, 3, 3, 3, requires_grad=True)

    def fits(
        x: torch.Tensor,
        norm: nn.Module,
        activation: nn.Module,
        weight: torch.Tensor,
        identity: torch.Tensor | None = None,
    ) -> bool:
        return training.fits(x, NormActPair(norm, activation), weight, identity, first(weight, identity))

    assert fits(x, norm, act, weight)
    assert not fits(x, nn.BatchNorm3d(16).eval(), act, weight)
    assert not fits(x, nn.BatchNorm3d(16, affine=False), act, weight)
    assert not fits(x, nn.InstanceNorm3d(16), act, weight)
    assert not fits(x, nn.SyncBatchNorm(16), act, weight)
    assert not fits(x, norm, nn.ELU(), weight)
    assert not fits(x.double(), norm, act, weight.double())
    assert not fits(x, norm, act, torch.randn(20, 16, 3, 3, 3), torch.randn(1, 10, *SIZE))
    with torch.no_grad():
        assert not fits(x, norm, act, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(x, norm, act, weight)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", [(16, 32, 16), (16, 30, 15)])
def test_a_network_trains_as_with_separate_layers(checkpointing, size, monkeypatch) -> None:
    def trained() -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = HighResNet(in_channels=1, out_channels=3, activation="prelu", checkpointing=checkpointing)
        x, direction = torch.randn(2, 1, *size), torch.randn(2, 3, *size)
        logits = network(x)
        return [logits, *torch.autograd.grad(logits, list(network.parameters()), direction), *network.buffers()]

    original, taken = training.norm_act_conv, []

    def watched(*arguments):
        result = original(*arguments)
        taken.append(True)
        return result

    monkeypatch.setattr(training, "norm_act_conv", watched)
    ours = trained()
    assert taken == [True] * (27 if checkpointing else 18), "what nothing waits for is not computed again"
    monkeypatch.setattr(training, "fits", lambda *_: False)
    least = least_cosine(HighResNet(in_channels=1, out_channels=3, activation="prelu"))
    for one, other in zip(ours, trained(), strict=True):
        assert F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0) > least
