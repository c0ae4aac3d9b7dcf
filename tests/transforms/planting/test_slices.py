"""Planting into patches of one slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms import LesionLibrary, RandPlantLesionsd

SIZE, WIDE = 96, 56


def noise(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal((1, *shape)).astype(np.float32)


@pytest.mark.parametrize("width", [8, 16, 24, 32])
def test_lesions_of_every_width_find_a_place(width: int) -> None:
    """Of a donor's shell a slice holds a ninth; places are compared by voxels of that, as many as there are.

    The anatomy is 56 voxels wide and each place is one of 64 drawn: a box of the widest lesion, 32 of the slice's 96
    voxels, lies in it at a share ((56 - 32 + 1) / (96 - 32 + 1))² = 0.15 of them, so that all 64 miss it with a
    probability of 3e-5.
    """
    random = np.random.default_rng(0)
    image, labels = noise(random, 120, 120, 9), np.zeros((1, 120, 120, 9), np.uint8)
    labels[0, 40 : 40 + width, 40 : 40 + width, 4] = 1
    image[labels > 0] += 5
    case = {"image": image, "label": labels, "mask": np.ones_like(labels)}
    library = LesionLibrary([{key: torch.from_numpy(value) for key, value in case.items()}], extent=(64, 64, 1))
    transform = RandPlantLesionsd("image", library, prob=1.0, count=(1, 1)).set_random_state(0)
    first = (SIZE - WIDE) // 2
    mask = np.zeros((1, SIZE, SIZE, 1), np.uint8)
    mask[0, first : first + WIDE, first : first + WIDE] = 1
    for _ in range(12):
        patch = {"image": noise(random, SIZE, SIZE, 1), "label": np.zeros_like(mask), "mask": mask}
        done = transform({key: torch.from_numpy(value) for key, value in patch.items()})
        assert done["planted"].tolist() == [1, width * width]
