"""Masked batch norm against PyTorch's own on the volume without padding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rarevox.networks.lattices.deal import from_lattices, pad_to_multiple, to_lattices
from rarevox.networks.lattices.padding import Padding, masked_batch_norm, update_running_statistics, zero_outside
from rarevox.networks.norms import make_norm


def _with_random_affine(norm: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.5)
    return norm.double()


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
    peer.momentum, peer.eps = momentum, 0.1  # not the default, which a constant could stand for
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


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0, None])
def test_running_statistics_move_as_pytorch_moves_them(momentum: float | None) -> None:
    ours, peer = (nn.BatchNorm2d(3, momentum=momentum).double() for _ in range(2))
    for batch in torch.randn(3, 4, 3, 5, 2, dtype=torch.float64).unbind():
        peer(batch)
        var, mean = torch.var_mean(batch, dim=(0, 2, 3))
        update_running_statistics(ours, mean, var)
    for one, other in zip(ours.buffers(), peer.buffers(), strict=True):
        torch.testing.assert_close(one, other)
