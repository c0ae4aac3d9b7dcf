from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rarevox.transforms import BatchAffine
from rarevox.transforms.batches.affine import sampling_grid


def turned(matrix: np.ndarray, volume: torch.Tensor) -> torch.Tensor:
    grid = sampling_grid(matrix[None], volume.shape[2:])
    return F.grid_sample(volume, grid, "bilinear", "border", align_corners=False)


def test_the_identity_changes_nothing() -> None:
    volume = torch.rand(1, 2, 5, 6, 7)
    assert torch.allclose(turned(np.eye(3), volume), volume, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_is_rot90_also_in_patches_of_unequal_sides(axis: int) -> None:
    sides = [6, 6, 6]
    sides[axis] = 4
    volume = torch.rand(1, 1, *sides)
    first, second = (a for a in range(3) if a != axis)
    matrix = np.eye(3)
    matrix[[first, second]] = matrix[[second, first]]
    matrix[first] *= -1  # the value at (a, b) comes from (−b, a)
    expected = torch.rot90(volume, 1, (second + 2, first + 2))
    assert torch.allclose(turned(matrix, volume), expected, atol=1e-5)


def test_scale_and_shear_by_hand() -> None:
    """A ramp along the first axis, of any patch: at half the size its slope doubles, sheared it leans."""
    x = torch.arange(9.0) - 4
    ramp = x.view(1, 1, 9, 1, 1).expand(1, 1, 9, 5, 7)
    found = turned(np.diag([2.0, 1, 1]), ramp)[0, 0, :, 0, 0]
    assert torch.allclose(found, (2 * x).clamp(-4, 4), atol=1e-5)
    lean = np.eye(3)
    lean[0, 2] = 0.5
    y = torch.arange(7.0) - 3
    found = turned(lean, ramp)[0, 0, :, 2]
    assert torch.allclose(found, (x[:, None] + 0.5 * y[None]).clamp(-4, 4), atol=1e-5)


def test_matrices_are_rotations_of_the_angles_asked_for() -> None:
    transform = BatchAffine(rotate=(0.5, 0.2, 0.3))
    for seed in range(30):
        matrix = transform.matrix(np.random.default_rng(seed))
        assert np.allclose(matrix @ matrix.T, np.eye(3))
        assert np.linalg.det(matrix) == pytest.approx(1)
        angle = math.acos(min((np.trace(matrix) - 1) / 2, 1))
        assert 0 < angle <= 0.5 + 0.2 + 0.3


def test_image_and_label_move_together() -> None:
    label = torch.zeros(20, 1, 12, 12, 12, dtype=torch.uint8)
    label[:, :, 3:9, 4:8, 2:7] = 1
    batch = {"image": label.float(), "label": label.clone()}
    transform = BatchAffine(rotate=(0.4, 0.4, 0.4), scale=(0.2, 0.2, 0.2), shear=0.1, prob=1)
    out = transform(batch, [np.random.default_rng(n) for n in range(20)])
    inside, outside = out["image"] > 0.9, out["image"] < 0.1
    assert bool((out["label"][inside] == 1).all())
    assert bool((out["label"][outside] == 0).all())


def test_a_patch_that_would_lose_its_foreground_stays_as_it_was() -> None:
    """A voxel in the corner turns out of the patch, unless the patch had no foreground in sight anyway."""
    label = torch.zeros(2, 1, 9, 9, 9, dtype=torch.uint8)
    label[0, 0, 0, 0, 0] = 2
    image = torch.rand(2, 1, 9, 9, 9)
    transform = BatchAffine(scale=(0.0, 0.0, 0.0), rotate=(0.0, 0.0, 0.5), prob=1)
    transform.matrix = lambda generator: np.diag([0.5, 0.5, 0.5])  # twice as large: the corner leaves
    out = transform({"image": image.clone(), "label": label.clone()}, [np.random.default_rng(n) for n in range(2)])
    assert torch.equal(out["label"], label)
    assert torch.equal(out["image"][0], image[0])
    assert not torch.equal(out["image"][1], image[1])
    hidden = BatchAffine(margin=1, prob=1)
    hidden.matrix = transform.matrix
    out = hidden({"image": image.clone(), "label": label.clone()}, [np.random.default_rng(n) for n in range(2)])
    assert not torch.equal(out["image"][0], image[0])
