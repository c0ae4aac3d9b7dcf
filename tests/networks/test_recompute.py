"""Recomputation changes the memory and nothing else."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rarevox.networks.recompute import recomputed


def test_outputs_gradients_and_running_statistics_are_those_of_one_pass() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).double()
    other = copy.deepcopy(plain)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    results = []
    for network, recompute in ((plain, False), (other, True)):
        leaf = x.clone().requires_grad_()
        y = recomputed(network, leaf) if recompute else network(leaf)
        y.square().sum().backward()
        results.append([y, leaf.grad, *(p.grad for p in network.parameters()), *network.buffers()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert other[1].num_batches_tracked.item() == 1
    assert other[1].track_running_stats


def test_a_graph_that_is_kept_can_be_gone_through_again() -> None:
    """As for the gradients of two terms of one loss: each pass computes the activations again."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).double()
    x, parameters = torch.randn(2, 2, 6, 6, dtype=torch.float64), list(network.parameters())
    y = recomputed(network, x)
    first = torch.autograd.grad(y.square().sum(), parameters, retain_graph=True)
    second = torch.autograd.grad(y.exp().sum(), parameters)
    assert network[1].num_batches_tracked.item() == 1
    plain = network(x)
    expected = torch.autograd.grad(plain.square().sum(), parameters, retain_graph=True)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, torch.autograd.grad(plain.exp().sum(), parameters))
