from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms.planting.donors import shape_donor
from rarevox.transforms.planting.places import empty_space, find_place

DONOR = shape_donor(np.ones((3, 2, 2), bool), 1)
ONE = torch.ones(1)


def test_empty_is_the_value_of_flat_blocks() -> None:
    """A voxel of the tissue that happens to equal its neighbours, along one axis, does not make tissue empty."""
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 9, 9, 9)).astype(np.float32))
    assert not empty_space(image).any()
    image[:, 3:5, 3, 3] = 1.5
    assert not empty_space(image).any()
    image[:, :2] = -0.7
    expected = torch.zeros(9, 9, 9, dtype=torch.bool)
    expected[:2] = True
    assert torch.equal(empty_space(image), expected)


def test_a_constant_patch_is_empty() -> None:
    assert empty_space(torch.zeros(1, 4, 4, 4)).all()


def test_the_place_is_tissue_like_the_donor_s() -> None:
    """Tissue of 0 on one side, 5 on the other, a voxel of 100 between: each donor finds its own, never both at once."""
    image = torch.zeros(1, 30, 12, 12)
    image[0, 15:] = 5
    healthy = torch.ones(30, 12, 12, dtype=torch.bool)
    for tissue, low, high in ((0.0, 0, 15), (5.0, 15, 30)):
        for seed in range(20):
            place = find_place(image, healthy, DONOR, tissue * ONE, ONE, (0, 0, 0), np.random.RandomState(seed))
            assert place is not None
            assert low <= place.start[0] + 2 and place.start[0] + 5 <= high
            assert (place.tissue.item(), place.spread.item()) == (tissue, 0)


def test_no_place_in_other_tissue() -> None:
    """Three standard deviations away is too far."""
    image, healthy = torch.full((1, 12, 12, 12), 3.0), torch.ones(12, 12, 12, dtype=torch.bool)
    assert find_place(image, healthy, DONOR, 0 * ONE, ONE, (0, 0, 0), np.random.RandomState(0)) is None


@pytest.mark.parametrize("margin", [(0, 0, 0), (2, 1, 3)])
def test_the_lesion_lies_in_healthy_tissue_that_the_loss_sees(margin: tuple[int, int, int]) -> None:
    image = torch.zeros(1, 12, 10, 12)
    healthy = torch.from_numpy(np.random.default_rng(1).random((12, 10, 12)) > 0.03)
    found = 0
    for seed in range(60):
        place = find_place(image, healthy, DONOR, 0 * ONE, ONE, margin, np.random.RandomState(seed))
        if place is not None:
            begin = [s + 2 for s in place.start]
            ends = [b + n for b, n in zip(begin, (3, 2, 2), strict=True)]
            assert all(b >= m and e <= n - m for b, e, n, m in zip(begin, ends, (12, 10, 12), margin, strict=True))
            assert healthy[tuple(slice(b, e) for b, e in zip(begin, ends, strict=True))].all()
            found += 1
    assert found > 30


def test_a_lesion_larger_than_the_patch_has_no_place() -> None:
    image, healthy = torch.zeros(1, 2, 9, 9), torch.ones(2, 9, 9, dtype=torch.bool)
    assert find_place(image, healthy, DONOR, 0 * ONE, ONE, (0, 0, 0), np.random.RandomState(0)) is None
