"""Norms on sub-lattices against PyTorch's own norms on the volume."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rarevox.networks.lattices.deal import Padding, from_lattices, pad_to_multiple, to_lattices
from rarevox.networks.norms import SampleNorm, SteadyStatistics, make_norm, masked_batch_norm, zero_outside


def _with_random_affine(norm: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.5)
    return norm.double()


@pytest.mark.parametrize("last", [False, True])
def test_sample_norm_spans_the_sub_lattices(last: bool) -> None:
    norm = _with_random_affine(SampleNorm(3))
    peer = nn.InstanceNorm3d(3, affine=True).double()
    peer.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 4, 8, 4, dtype=torch.float64) * torch.linspace(1, 5, 8)[:, None].double()
    x = x.to(memory_format=torch.channels_last_3d) if last else x
    y = from_lattices(norm(to_lattices(x, 2), batch=2), (2,))
    torch.testing.assert_close(y, peer(x), rtol=1e-12, atol=1e-12)


def test_sample_norm_of_single_sub_lattices_would_differ() -> None:
    x = torch.randn(1, 2, 4, 4)
    x[..., ::2] += 10
    lattices = to_lattices(x, 2)
    norm = SampleNorm(2)
    assert (norm(lattices, batch=1) - norm(lattices, batch=4)).abs().max() > 0.5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_masked_batch_norm_is_the_batch_norm_of_the_inside(dims: int, last: bool, momentum: float | None) -> None:
    torch.manual_seed(0)
    size = (5, 7, 3)[:dims]
    x = torch.randn(2, 3, *size, dtype=torch.float64) * 3 + 1
    if last:
        x = x.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
    peer = _with_random_affine(make_norm("batch", 3, dims))
    peer.momentum = momentum
    norm = copy.deepcopy(peer)
    padding = Padding.of(x, 4)
    assert padding is not None
    plain = x.clone().requires_grad_()
    masked = x.clone().requires_grad_()
    for _ in range(2):
        expected = peer(plain)
        dealt = to_lattices(pad_to_multiple(masked, 4), 4)
        y = from_lattices(masked_batch_norm(dealt, norm, padding.dealt(4)), (4,))
    inside = tuple(slice(n) for n in size)
    inner = y[(slice(None), slice(None), *inside)]
    torch.testing.assert_close(inner, expected, rtol=1e-12, atol=1e-12)
    assert y.count_nonzero() == inner.count_nonzero() == x.numel()
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    inner.backward(gradient)
    torch.testing.assert_close(masked.grad, plain.grad, rtol=1e-10, atol=1e-12)
    for a, b in zip(norm.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    for a, b in zip(norm.buffers(), peer.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_zero_outside_stops_values_and_gradients() -> None:
    x = torch.ones(1, 1, 3, 4)
    padding = Padding.of(x, 4)
    assert padding is not None
    leaf = torch.ones(1, 1, 4, 4, requires_grad=True)
    y = zero_outside(leaf * 2, padding)
    y.sum().backward()
    assert y[0, 0, 3].tolist() == [0.0] * 4
    assert y.sum().item() == 24  # 12 voxels inside, each 2
    assert leaf.grad is not None
    assert leaf.grad.sum().item() == 24


def test_statistics_forget_where_they_began_and_span_a_tenth_of_the_steps() -> None:
    norm = nn.BatchNorm3d(2)
    with torch.no_grad():
        norm.running_mean.fill_(1e6)
    steady = SteadyStatistics(nn.Sequential(norm), patches=50)
    momenta = []
    for step in range(1, 801):
        steady(step=step, batch=1)
        momenta.append(norm.momentum)
        norm(torch.full((1, 2, 1, 1, 2), float(step)))
    assert momenta[:3] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert momenta[99] == 0.1
    assert momenta[199] == 0.05
    assert momenta[499:] == [0.02] * 301
    # An exponential mean of momentum 0.02 over 1, 2 … 800 lags 1 / 0.02 − 1 steps behind.
    torch.testing.assert_close(norm.running_mean, torch.full((2,), 751.0), rtol=0, atol=1)


@pytest.mark.parametrize(("batch", "expected"), [(1, 0.02), (4, 0.08), (16, 0.1)])
def test_momentum_is_never_above_the_norms_own(batch: int, expected: float) -> None:
    norms = [nn.BatchNorm3d(2), nn.BatchNorm2d(2, momentum=0.01), nn.BatchNorm3d(2, momentum=None)]
    steady = SteadyStatistics(nn.ModuleList(norms), patches=50)
    for _ in range(2):
        steady(step=1000, batch=batch)
        assert [norm.momentum for norm in norms] == [pytest.approx(expected), 0.01, None]
