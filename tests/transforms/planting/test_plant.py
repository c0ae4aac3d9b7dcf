from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms.planting.donors import Donor
from rarevox.transforms.planting.plant import plant
from rarevox.transforms.planting.surroundings import level_and_spread

from .plans import at, donor, patch

POINT = np.ones((1, 1, 1), bool)
SHAPE = (13, 13, 13)
MIDDLE = (6, 6, 6)


def image(level: float = 4.0, seed: int = 0) -> torch.Tensor:
    """Noise of about 1 with a level and spread around the middle that are known: those of the shell."""
    return level + torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def around(values: torch.Tensor) -> tuple[float, float]:
    """Level and spread 2 to 4 voxels from the middle, which is all but the inner 27 of 9³."""
    shell = values[2:11, 2:11, 2:11].clone()
    shell[3:6, 3:6, 3:6] = torch.nan
    level, spread = level_and_spread(shell.flatten())
    return float(level), float(spread)


def planted(
    one: Donor,
    values: torch.Tensor,
    *,
    start: tuple[int, ...] = MIDDLE,
    limits: tuple[float, float] = (-99, 99),
    content: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    patches = patch(values, content=content)
    done = plant(patches, patches.lesions([at(one, *start)]), torch.tensor([limits]))
    return patches.inner(patches.image)[0, 0], patches.inner(patches.labels)[0], bool(done)


def test_by_hand() -> None:
    """The lesion is t + k c; the voxels beside it a third of themselves and two thirds of t, those beyond a third."""
    values = image()
    level, spread = around(values)
    after, labels, done = planted(donor(6.0, tissue=4.0, spread=1.0, mask=POINT), values)
    assert done and labels.nonzero().tolist() == [list(MIDDLE)] and labels[MIDDLE] == 3
    assert float(after[MIDDLE]) == pytest.approx(level + spread * 6.0, rel=1e-5)
    for steps, weight in ((1, 2 / 3), (2, 1 / 3), (3, 0)):
        place = (6, 6 + steps, 6)
        expected = float(values[place]) + weight * (level - float(values[place]))
        assert float(after[place]) == pytest.approx(expected, rel=1e-5)


def test_the_contrast_follows_the_spread_of_the_tissue() -> None:
    for scale in (0.8, 1.0, 1.25):
        values = image()
        level, spread = around(values)
        after, _, done = planted(donor(6.0, tissue=4.0, spread=spread / scale, mask=POINT), values)
        assert done and float(after[MIDDLE]) == pytest.approx(level + scale * 6.0, rel=1e-4)


def test_what_finds_no_place_changes_nothing() -> None:
    values = image()
    for one in (donor(tissue=9.0, mask=POINT), donor(tissue=4.0, spread=9.0, mask=POINT)):
        after, labels, done = planted(one, values)
        assert not done and torch.equal(after, values) and not labels.any()


def test_intensities_are_held_within_the_limits() -> None:
    for change, limits, held in ((60.0, (-99.0, 12.0), 12), (-60.0, (-1.0, 99.0), -1)):
        after, _, _ = planted(donor(change, tissue=4.0, mask=POINT), image(), limits=limits)
        assert after[MIDDLE] == held


def test_the_rim_may_reach_beyond_the_patch() -> None:
    """In the corner of a patch, of which an eighth of the shell and of the rim is seen."""
    values = image()
    after, labels, done = planted(donor(6.0, tissue=4.0, mask=POINT), values, start=(0, 0, 0))
    changed = (after != values).nonzero()
    assert done and labels.nonzero().tolist() == [[0, 0, 0]] and changed.max() == 2 and len(changed) == 27


def test_nothing_changes_where_it_is_not_allowed() -> None:
    values, content = image(), torch.ones(SHAPE, dtype=torch.bool)
    content[6, 6, 7] = False
    after, _, done = planted(donor(6.0, tissue=4.0, mask=POINT), values, content=content)
    assert done and after[6, 6, 7] == values[6, 6, 7] and after[6, 6, 5] != values[6, 6, 5]


def test_from_tissue_without_texture_to_its_like_the_contrast_stays() -> None:
    """A lesion of 3 more than its tissue, in tissue of 4 alone: 7."""
    after, labels, done = planted(donor(3.0, tissue=4.0, spread=0.0, mask=POINT), torch.full(SHAPE, 4.0))
    assert done and labels[MIDDLE] == 3 and float(after[MIDDLE]) == 7
