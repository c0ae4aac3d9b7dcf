"""Recomputation changes the memory and nothing else."""

from __future__ import annotations

import copy

import torch
from torch import nn

from networks.recompute import recomputed


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
