"""Where the kernels of batch norm in training are taken, and where they are passed over."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.networks.cuda import norm as fused


@pytest.mark.parametrize(
    "norm",
    [
        nn.SyncBatchNorm(4),
        nn.GroupNorm(2, 4),
        nn.BatchNorm3d(4).eval(),
        nn.BatchNorm3d(4, affine=False),
        nn.BatchNorm3d(4, momentum=None),
        nn.BatchNorm3d(4).double(),
    ],
    ids=["several processes", "group norm", "evaluation", "no weights", "mean of all", "float64"],
)
def test_norms_that_are_passed_over(monkeypatch, norm):
    monkeypatch.setattr(fused, "why_none", lambda: None)
    assert fused.knows(nn.BatchNorm3d(4), nn.ReLU()) and fused.knows(nn.BatchNorm2d(4), nn.PReLU(4))
    assert not fused.knows(norm, nn.ReLU())


def test_without_triton_or_where_something_is_recorded_it_is_passed_over(monkeypatch):
    monkeypatch.setattr(fused, "why_none", lambda: "no compiler")
    assert not fused.knows(nn.BatchNorm3d(4), nn.ReLU())
    monkeypatch.setattr(fused, "why_none", lambda: None)
    assert not fused.knows(nn.BatchNorm3d(4), nn.GELU())
    assert fused.knows(nn.BatchNorm3d(4), nn.ReLU())
    assert torch.func.vmap(lambda x: x * fused.knows(nn.BatchNorm3d(4), nn.ReLU()))(torch.ones(2)).tolist() == [
        0.0,
        0.0,
    ]


def test_small_volumes_are_left_to_pytorch_but_in_graphs(monkeypatch):
    assert not fused.is_large(fused.LEAST_BYTES - 1) and fused.is_large(fused.LEAST_BYTES)
    with pytest.raises(KeyError), fused.in_graph():
        assert fused.is_large(1)
        raise KeyError
    assert not fused.is_large(1)


def test_on_the_cpu_they_are_passed_over(monkeypatch):
    monkeypatch.setattr(fused, "why_none", lambda: None)
    with fused.in_graph():
        assert not fused.fits(torch.zeros(2, 4, 4, 4, 4), nn.BatchNorm3d(4), nn.ReLU(), padded=True)
