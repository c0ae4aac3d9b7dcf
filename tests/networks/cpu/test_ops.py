from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rarevox.networks import HighResNet
from rarevox.networks.cpu import ops
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.lattices import pieces
from tests.bounds import assert_within, network_bound


def settled(**options: object) -> HighResNet:
    """A network in evaluation whose norms are not those of the first day."""
    torch.manual_seed(0)
    network = HighResNet(in_channels=2, out_channels=3, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.3)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 1)
    return network.eval()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Lets every volume go through in pieces; says for each block whether both its convolutions were fused."""
    taken: list[bool] = []
    original, convolve = ops.residual_block, winograd.convolve
    calls: list[winograd.Around] = []

    def watched(*arguments: object) -> torch.Tensor:
        before = len(calls)
        result = original(*arguments)  # type: ignore[arg-type]
        taken.append([around.add is not None for around in calls[before:]] == [False, True])
        return result

    def counted(*arguments: object, **options: object) -> torch.Tensor:
        calls.extend(one for one in arguments if isinstance(one, winograd.Around))
        return convolve(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ops, "residual_block", watched)
    monkeypatch.setattr(winograd, "convolve", counted)
    monkeypatch.setattr(pieces, "PIECE_VOXELS", 1)
    monkeypatch.setattr(winograd, "LEAST_VOXELS", 1)
    return taken


@pytest.mark.skipif(winograd.kernels() is None, reason="Numba is not installed")
@pytest.mark.parametrize(
    ("activation", "batch", "size"), [("relu", 2, (16, 16, 16)), ("relu", 1, (17, 19, 30)), ("prelu", 1, (32, 13, 15))]
)
def test_fused_blocks_give_the_logits_of_the_plain_network(activation, batch, size, fused) -> None:
    """Slopes are numbers that the kernels are given, whatever the size; both activations meet padding."""
    network = settled(activation=activation)
    plain = copy.deepcopy(network).double()
    x = torch.randn(batch, 2, *size)
    before = x.clone()
    with torch.no_grad():
        logits, again, exact = network(x), network(x), plain(x.double())
    assert any(fused)
    assert torch.equal(x, before)
    assert torch.equal(logits, again)
    assert_within(logits, exact, network_bound(network) * exact.abs().max())


@pytest.mark.skipif(winograd.kernels() is None, reason="Numba is not installed")
def test_every_block_of_a_large_scan_is_fused(fused) -> None:
    with torch.no_grad():
        settled()(torch.randn(1, 2, 32, 32, 32))
    # 3 at full resolution, 3 on each of 8 sub-lattices, 3 on each of their 8.
    assert fused == [True] * (3 + 8 * 3 + 64 * 3)


@pytest.mark.parametrize("options", [{"width": 8}, {"norm": "instance"}])
def test_other_networks_are_left_as_they_are(options, fused) -> None:
    network = settled(**options)
    x = torch.randn(1, 2, 16, 12, 16)
    with torch.no_grad():
        logits = network(x)
        exact = copy.deepcopy(network).double()(x.double())
    assert_within(logits, exact, network_bound(network) * max(x.abs().max().item(), exact.abs().max().item()))
