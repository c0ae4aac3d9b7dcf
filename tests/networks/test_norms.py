"""Norms on sub-lattices against PyTorch's own norms on the volume."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.networks.lattices.deal import from_lattices, to_lattices
from rarevox.networks.norms import SampleNorm, make_activation


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


def test_prelu_has_a_slope_for_each_channel() -> None:
    x = torch.full((1, 3, 2, 2), -1.0)
    assert make_activation("prelu", 3)(x).unique().tolist() == [-0.25]
    assert sum(p.numel() for p in make_activation("prelu", 3).parameters()) == 3
    assert not make_activation("relu", 3)(x).any()
