"""The momentum of batch norms along a training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics


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
