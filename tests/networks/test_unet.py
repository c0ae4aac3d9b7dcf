"""ValidUNet: the sizes of table 1 and the alignment of its levels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.networks import ValidUNet


@pytest.mark.parametrize(("size", "expected"), [(56, 16), (64, 24), (88, 48)])
def test_sizes_of_table_1(size: int, expected: int) -> None:
    network = ValidUNet(in_channels=1, out_channels=2, width=2)
    assert network(torch.zeros(1, 1, size, size)).shape == (1, 2, expected, expected)


def test_three_dimensions() -> None:
    network = ValidUNet(in_channels=1, out_channels=2, width=2, spatial_dims=3)
    assert network(torch.zeros(1, 1, 44, 48, 44)).shape == (1, 2, 4, 8, 4)


@pytest.mark.parametrize("size", [54, 55, 57, 58])
def test_sizes_at_which_a_pooling_would_cut_a_voxel_are_refused(size: int) -> None:
    low = size // 4 * 4
    with pytest.raises(ValueError, match=f"nearest sizes that work: {low} or {low + 4} x 56$"):
        ValidUNet(in_channels=1, out_channels=2, width=2)(torch.zeros(1, 1, size, 56))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_an_impulse_comes_out_at_its_place_through_every_level(level: int) -> None:
    network = ValidUNet(in_channels=1, out_channels=1, width=1).eval()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.zeros_(module.weight)
            if isinstance(module, nn.ConvTranspose2d):
                module.weight.data[0, 0] = 1.0
            else:
                module.weight.data[0, 0, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = 1.0
    # The joined features are (skip, raised): take the one that comes from the level under test.
    for sequence, is_skip in ((network.up1, level == 1), (network.up2, level == 2)):
        channel = 0 if is_skip else sequence[0].weight.shape[1] // 2
        sequence[0].weight.data[0, :, 1, 1] = 0.0
        sequence[0].weight.data[0, channel, 1, 1] = 1.0
    # Blocks of two voxels begin at even places of the output; blocks of four at 2, 6, …, for the first pooling begins
    # at input voxel 2, the second at 2 + 2 · 2 = 6, and the output at 20 ≡ 0 (mod 4).
    block, first = 2 ** (level - 1), {1: 0, 2: 0, 3: -2}[level]
    for place in (0, 5, 15):
        x = torch.zeros(1, 1, 56, 56)
        x[0, 0, 20 + place, 20 + place] = 1.0
        expected = torch.zeros(16, 16)
        start = (place - first) // block * block + first
        inside = slice(max(start, 0), start + block)
        expected[inside, inside] = 1.0
        assert network(x)[0, 0].equal(expected)


def test_batch_norm_replaces_the_biases() -> None:
    network = ValidUNet(in_channels=1, out_channels=2, width=2, norm="batch")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 10
    assert network.down1[0].bias is None
    with pytest.raises(ValueError, match="norm must be one of 'none', 'batch', got 'instance'"):
        ValidUNet(in_channels=1, out_channels=2, norm="instance")
