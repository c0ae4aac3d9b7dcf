from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.transforms.planting.surroundings import MOST_TISSUE, level_and_spread, shell_of


def test_the_shell_is_two_to_four_steps_away() -> None:
    """By the chessboard distance, which SciPy computes apart."""
    mask = np.random.default_rng(0).random((4, 3, 2)) < 0.4
    mask[0, 0, 0] = True
    wide = np.pad(mask, 6)
    steps = ndimage.distance_transform_cdt(~wide, "chessboard")
    expected = {tuple(place) for place in (np.argwhere((steps >= 2) & (steps <= 4)) - 6).tolist()}
    assert {tuple(place) for place in shell_of(mask).tolist()} == expected


def test_the_shell_of_a_large_lesion_is_evenly_picked() -> None:
    shell = shell_of(np.ones((20, 20, 20), bool))
    assert len(shell) == MOST_TISSUE == len(np.unique(shell, axis=0))
    # Each half of the shell holds half of the voxels, give or take a slice of the 28 on either side of the middle.
    assert abs((shell[:, 0] < 10).mean() - 0.5) < 1 / 28


@pytest.mark.parametrize("n", [100, 5000])
def test_level_and_spread_of_normal_numbers(n: int) -> None:
    """Standard errors: of the median √(π/2)/√n, of the spread 1.17/√n; each of 200 lists lies within five."""
    values = 3 + 2 * torch.randn(200, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level, spread = level_and_spread(values)
    assert ((level - 3).abs() < 5 * 2 * math.sqrt(math.pi / 2 / n)).all()
    assert ((spread / 2 - 1).abs() < 5 * 1.17 / math.sqrt(n)).all()


def test_what_is_no_number_does_not_count() -> None:
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    filled = torch.cat([values, torch.full((3, 17), torch.nan)], 1)[:, torch.randperm(57)]
    for found, expected in zip(level_and_spread(filled), level_and_spread(values), strict=True):
        assert torch.equal(found, expected)
