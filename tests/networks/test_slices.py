"""2D networks on volumes: each slice by itself, sizes of table 1, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.networks import DeepMedic, Geometry, HighResNet, TwoPathCNN, ValidUNet
from rarevox.networks.slices import SliceWise
from tests.bounds import assert_within, network_bound


def small(kind: type[nn.Module]) -> SliceWise:
    torch.manual_seed(0)
    options = {
        HighResNet: {"width": 2},
        DeepMedic: {"channels": (3,) * 8, "joint": (4, 4)},
        ValidUNet: {"width": 2},
        TwoPathCNN: {"local_features": 1, "global_features": 1},
    }[kind]
    return SliceWise(kind(in_channels=2, out_channels=3, spatial_dims=2, **options)).eval()


# Sudre et al. 2017, table 1: patch to effective patch; HighResNet keeps the size and the loss leaves 18 pixels out.
TABLE_1 = [
    *[(ValidUNet, n, n - 40) for n in (56, 64, 88)],
    *[(TwoPathCNN, n, n - 32) for n in (51, 63, 85)],
    *[(DeepMedic, n, n - 48) for n in (51, 63, 87)],
    *[(HighResNet, n, n - 36) for n in (51, 63, 85)],
]


@pytest.mark.parametrize(("kind", "size", "effective"), TABLE_1)
def test_sizes_of_table_1_as_patches_of_volumes(kind: type[nn.Module], size: int, effective: int) -> None:
    network = small(kind)
    lost = network.geometry.loss_margins(18 if kind is HighResNet else 0)
    with torch.no_grad():
        found = network(torch.zeros(1, 2, size, size, 1)).shape[2:]
    assert [n - 2 * m for n, m in zip(found, lost, strict=True)] == [effective, effective, 1]
    unseen = network.geometry.unseen(18 if kind is HighResNet else 0)
    assert [n - 2 * m for n, m in zip((size, size, 1), unseen, strict=True)] == [effective, effective, 1]


@pytest.mark.parametrize("kind", [HighResNet, DeepMedic, ValidUNet, TwoPathCNN])
def test_every_slice_is_the_network_s_own_result(kind: type[nn.Module]) -> None:
    network = small(kind)
    x = torch.randn(2, 2, *network.geometry.minimum[:2], 3)
    with torch.no_grad():
        found = network(x)
        for sample in range(2):
            for place in range(3):
                expected = network.network(x[sample : sample + 1, ..., place])
                bound = 2 * network_bound(network) * max(x.abs().max().item(), expected.abs().max().item())
                assert_within(found[sample : sample + 1, ..., place], expected, bound)


def test_state_dict_has_the_network_s_entries() -> None:
    network = small(ValidUNet)
    assert set(network.state_dict()) == {f"network.{name}" for name in network.network.state_dict()}


def test_memory_is_what_the_network_states() -> None:
    network = small(HighResNet)
    assert network.peak_bytes(2, True) == network.network.peak_bytes(2, True)
    assert small(ValidUNet).peak_bytes(4) is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a network of 2 axes, and HighResNet has 3"):
        SliceWise(HighResNet(in_channels=1, out_channels=2, width=2))
    with pytest.raises(ValueError, match="states no geometry"):
        SliceWise(nn.Conv2d(1, 2, 3))
    assert SliceWise(nn.Conv2d(1, 2, 3), Geometry(receptive_field=(3, 3), margin=1)).geometry.margin == (1, 1, 0)
    with pytest.raises(ValueError, match="takes a batch with 5 axes"):
        small(HighResNet)(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="in_channels=2 and got 5"):
        small(HighResNet)(torch.zeros(1, 5, 8, 8, 2))
    with pytest.raises(ValueError, match="nearest sizes that work: 56 or 60"):
        small(ValidUNet)(torch.zeros(1, 2, 58, 60, 2))
