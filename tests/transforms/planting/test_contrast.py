"""A planted lesion is as strong as the lesion that it comes from, whatever its size."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.transforms import LesionLibrary, RandPlantLesionsd
from rarevox.transforms.planting.donors import Donor

FULL = np.ones((3, 3, 3), bool)
SIDE = 28
BINS = (3, 10, 30, 100, 10**6)
SHAPES = ((1, 1, 3), (2, 2, 2), (2, 2, 3), (3, 3, 3), (3, 4, 4), (4, 4, 5), (5, 5, 5), (6, 6, 7))
"""Voxels of the lesions, two for each size: 3, 8, 12, 27, 48, 80, 125, 252."""


class Noted(LesionLibrary):
    """A library that knows what it gave last."""

    def draw(self, random: np.random.RandomState) -> Donor:
        self.last = super().draw(random)
        return self.last


def scan(seed: int, shape: tuple[int, ...] | None, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Tissue of 3 and −3 with noise, perhaps a lesion in its middle, 4 to 8 times the noise brighter and darker; noise
    and contrast are ``gain`` times as strong."""
    random = np.random.default_rng(seed)
    image = np.array([3.0, -3.0])[:, None, None, None] + gain * random.standard_normal((2, SIDE, SIDE, SIDE))
    labels = np.zeros((SIDE,) * 3, np.uint8)
    if shape is not None:
        where = tuple(slice(SIDE // 2 - n // 2, SIDE // 2 - n // 2 + n) for n in shape)
        labels[where] = 1
        image[(slice(None), *where)] += gain * random.uniform(4, 8) * np.array([1, -1])[:, None, None, None]
    mask = torch.ones(1, SIDE, SIDE, SIDE, dtype=torch.uint8)
    return {"image": torch.from_numpy(image.astype(np.float32)), "label": torch.from_numpy(labels)[None], "mask": mask}


def surroundings(image: np.ndarray, lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median (the lower one) and 1.4826 times the median deviation, (C,), of what is 2 to 4 voxels from a lesion."""
    shell = ndimage.binary_dilation(lesion, FULL, iterations=4) & ~ndimage.binary_dilation(lesion, FULL)

    def middle(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.sort(values, 1)[:, (values.shape[1] - 1) // 2])

    values = image[:, shell]
    level = middle(values)
    return level, 1.4826 * middle(np.abs(values - level[:, None]))


@pytest.fixture(scope="module")
def plants() -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Each lesion planted into fresh tissue: voxels, number of the scan it comes from, its contrasts there over the
    donor's, (C,), and the same in standard deviations of the tissue."""
    cases = [scan(number, SHAPES[number % 8], gain=1.0 + 0.25 * (number % 3 == 2)) for number in range(40)]
    library = Noted(cases)
    assert len(library.donors) == 40
    plant = RandPlantLesionsd("image", library, prob=1.0, count=(1, 1)).set_random_state(seed=0)
    found = []
    for draw in range(240):
        before = scan(1000 + draw, None)
        after = plant(before)
        lesion = after["label"][0].numpy() > 0
        if not lesion.any():
            continue
        case = cases[library.last.case]
        donor = case["label"][0].numpy() > 0
        level, spread = surroundings(before["image"].numpy(), lesion)
        own_level, own_spread = surroundings(case["image"].numpy(), donor)
        contrast = after["image"].numpy()[:, lesion].mean(1) - level
        own = case["image"].numpy()[:, donor].mean(1) - own_level
        ratio = contrast / own
        found.append((int(lesion.sum()), library.last.case, ratio, ratio * own_spread / spread))
    return found


def test_contrasts_in_standard_deviations_of_the_tissue_are_the_donor_s(
    plants: list[tuple[int, int, np.ndarray, np.ndarray]],
) -> None:
    """To rounding: ten operations on numbers of at most 20 in float32, 2⁻²⁴ each, over contrasts of at least 3."""
    assert len(plants) > 150
    for _, _, _, ratio in plants:
        np.testing.assert_allclose(ratio, 1, rtol=10 * 2**-24 * 20 / 3)


def test_in_tissue_alike_lesions_of_every_size_are_as_strong_as_they_were(
    plants: list[tuple[int, int, np.ndarray, np.ndarray]],
) -> None:
    """The geometric mean of planted over donor's contrast is 1 within five standard errors.

    A ratio of two spreads of shells of n voxels has the relative error 1.17/√n twice: once for each of the d donors,
    once for each of the p plants. Shells hold 600 voxels or more. The logarithm's own bias is half the variance.
    """
    logs = defaultdict(list)
    for voxels, case, ratio, _ in plants:
        if case % 3 != 2:  # the tissue of the others is another
            logs[int(np.searchsorted(BINS, voxels, "right")) - 1].append((case, np.log(ratio)))
    assert sorted(logs) == [0, 1, 2, 3]
    for rows in logs.values():
        donors, count = len({case for case, _ in rows}), len(rows)
        assert donors >= 6 and count >= 25
        error = 1.17 * math.sqrt((1 / donors + 1 / count) / 600)
        assert np.abs(np.mean([log for _, log in rows], 0)).max() < 5 * error + 1.17**2 / 600
