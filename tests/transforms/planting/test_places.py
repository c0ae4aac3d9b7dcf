from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms.planting.patches import Planned
from rarevox.transforms.planting.places import FARTHEST, best_place

from .plans import at, donor, patch, planned

SHAPE = (30, 14, 14)


def tissue(level: float = 0.0, spread: float = 1.0, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return level + spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def found(image: torch.Tensor, one: Planned, healthy: torch.Tensor | None = None) -> tuple[int, ...] | None:
    """Where a lesion's box begins; None for nowhere."""
    patches = patch(image, content=healthy)
    start, place = best_place(patches.tissue(), patches.lesions([one]))
    if not float(place.distance) <= FARTHEST:
        return None
    return tuple(int(n) for n in np.unravel_index(int(start), patches.shape))


def test_the_place_is_tissue_like_the_donor_s() -> None:
    """Tissue of 0 on one side, of 9 on the other: each donor finds its own."""
    image = torch.cat([tissue(0)[:15], tissue(9)[15:]])
    for level, low, high in ((0.0, 0, 15), (9.0, 15, 30)):
        for seed in range(10):
            start = found(image, planned(donor(tissue=level), SHAPE, seed))
            assert start is not None and low <= start[0] and start[0] + 3 <= high


def test_no_place_in_other_tissue() -> None:
    """Three standard deviations away is too far; so is tissue that varies three times as much, or a third."""
    one = planned(donor(), SHAPE)
    assert found(tissue(), one) is not None
    assert found(tissue(level=3.0), one) is None
    assert found(tissue(spread=3.0), one) is None and found(tissue(spread=1 / 3), one) is None


def test_the_tissue_around_is_not_enough() -> None:
    """The place itself is of other tissue, though what is around it is the donor's."""
    image = tissue()
    assert found(image, at(donor(), 14, 6, 6)) is not None
    image[14:17, 6:8, 6:8] += 8
    assert found(image, at(donor(), 14, 6, 6)) is None


def test_of_places_with_more_and_with_less_spread_none_is_preferred() -> None:
    """Beside donors with so many times the spread of a place, and with as many times less, it is as far away."""
    patches = patch(tissue())
    _, same = best_place(patches.tissue(), patches.lesions([at(donor(), 14, 6, 6)]))
    level, spread = float(same.tissue), float(same.spread)

    def squared(factor: float) -> float:
        one = donor(tissue=level, spread=spread * factor)
        return float(best_place(patches.tissue(), patches.lesions([at(one, 14, 6, 6)]))[1].distance) ** 2

    for factor in (1.2, 1.5, 1.9):
        assert squared(factor) == pytest.approx(squared(1 / factor), rel=1e-4)
        assert squared(factor) - squared(1.0) == pytest.approx(4 * np.log2(factor) ** 2, rel=1e-3)


def test_the_lesion_lies_in_healthy_tissue() -> None:
    image, healthy = tissue(), torch.from_numpy(np.random.default_rng(1).random(SHAPE) > 0.03)
    count = 0
    for seed in range(40):
        start = found(image, planned(donor(), SHAPE, seed), healthy)
        if start is not None:
            assert healthy[tuple(slice(b, b + n) for b, n in zip(start, (3, 2, 2), strict=True))].all()
            count += 1
    assert count > 20


def test_places_of_a_batch_are_those_of_its_patches() -> None:
    """Lists of other lengths beside it, and a patch without any lesion, change nothing, to the bit."""
    large = donor(mask=np.ones((7, 7, 7), bool))
    plans = [planned(donor(), SHAPE, 1), planned(large, SHAPE, 2), None]
    images = [tissue(seed=seed) for seed in range(3)]
    whole = patch(images[0])
    whole.image = torch.cat([patch(image).image for image in images])
    whole.labels, whole.content = (torch.cat([one] * 3) for one in (whole.labels, whole.content))
    starts, places = best_place(whole.tissue(), whole.lesions(plans))
    assert torch.isinf(places.distance[2]).all()
    for row in range(2):
        single = patch(images[row])
        start, place = best_place(single.tissue(), single.lesions([plans[row]]))
        assert torch.equal(start[0], starts[row])
        for mine, theirs in zip(place, places, strict=True):
            assert torch.equal(mine[0], theirs[row])
