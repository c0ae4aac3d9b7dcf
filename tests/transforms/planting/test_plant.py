from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms.planting.donors import Donor, shape_donor
from rarevox.transforms.planting.places import Place
from rarevox.transforms.planting.plant import plant


def donor(change: list[float], spread: float = 1.0) -> Donor:
    """One voxel with a rim of two on a line."""
    shape = shape_donor(np.ones(1, bool), 3)
    return Donor(3, 1, shape.mask, shape.weight, torch.tensor([change]), torch.zeros(1), torch.tensor([spread]))


def planted(
    one: Donor, start: int, tissue: float, spread: float = 1.0, low: float = -99, high: float = 99
) -> list[float]:
    image, labels = torch.full((1, 7), 10.0), torch.zeros(7, dtype=torch.uint8)
    place = Place((start,), torch.tensor([tissue]), torch.tensor([spread]))
    plant(image, labels, one, place, torch.ones(7, dtype=torch.bool), torch.tensor([[low, high]]))
    assert labels.tolist() == [3 if place == start + 2 else 0 for place in range(7)]
    return image[0].tolist()


def test_by_hand() -> None:
    """Weights 1/3, 2/3, 1, 2/3, 1/3 from voxel 1 on; tissue 4 and contrasts 0, 3, 6, 3, 0: 10 + w (4 + c − 10)."""
    expected = [10, 10 - 6 / 3, 10 - 2 * 3 / 3, 10, 10 - 2 * 3 / 3, 10 - 6 / 3, 10]
    assert planted(donor([0, 3, 6, 3, 0]), 1, 4.0) == pytest.approx(expected, rel=1e-6)


def test_the_contrast_follows_the_spread_of_the_tissue_within_bounds() -> None:
    one = donor([0, 0, 6, 0, 0], spread=2.0)
    for spread, factor in ((2.0, 1), (3.0, 1.5), (99.0, 2), (0.1, 0.5)):
        assert planted(one, 1, 4.0, spread)[3] == pytest.approx(4 + 6 * factor)


def test_intensities_are_held_within_the_limits() -> None:
    assert planted(donor([0, 0, 60, 0, 0]), 1, 4.0, high=12.0)[3] == 12
    assert planted(donor([0, 0, -60, 0, 0]), 1, 4.0, low=-1.0)[3] == -1


def test_the_rim_may_reach_beyond_the_patch() -> None:
    assert planted(donor([0, 0, 6, 0, 0]), -2, 10.0)[:4] == [16, 10, 10, 10]


def test_nothing_changes_where_it_is_not_allowed() -> None:
    image, labels = torch.full((1, 7), 10.0), torch.zeros(7, dtype=torch.uint8)
    allowed = torch.tensor([True, True, False, True, True, True, True])
    place = Place((1,), torch.tensor([4.0]), torch.tensor([1.0]))
    plant(image, labels, donor([0, 3, 6, 3, 0]), place, allowed, torch.tensor([[-99.0, 99.0]]))
    assert image[0, 2] == 10 and image[0, 4] != 10
