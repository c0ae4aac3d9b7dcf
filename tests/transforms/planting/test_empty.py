from __future__ import annotations

import numpy as np
import torch

from rarevox.transforms.planting.empty import empty_space


def noise() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 9, 9, 9)).astype(np.float32))


def test_empty_are_flat_blocks_of_any_value() -> None:
    """Air of one value and padding of another; a few voxels of tissue that happen to be equal are none."""
    image = noise()
    assert not empty_space(image[None]).any()
    image[:, 3:5, 3, 3] = 1.5
    assert not empty_space(image[None]).any()
    image[:, :3] = -0.7
    image[:, :, :, 6:] = 0.0
    expected = torch.zeros(9, 9, 9, dtype=torch.bool)
    expected[:3] = True
    expected[:, :, 6:] = True
    assert torch.equal(empty_space(image[None])[0], expected)


def test_the_corners_of_a_block_within_tissue_are_of_it() -> None:
    image = noise()
    image[:, 2:7, 2:7, 2:7] = 4.0
    expected = torch.zeros(9, 9, 9, dtype=torch.bool)
    expected[2:7, 2:7, 2:7] = True
    assert torch.equal(empty_space(image[None])[0], expected)


def test_each_patch_of_a_batch_is_looked_at_by_itself() -> None:
    one, other = noise(), noise()
    one[:, :2], other[:, :, 5:] = 0.0, 3.0
    both = empty_space(torch.stack([one, other]))
    assert torch.equal(both, torch.cat([empty_space(one[None]), empty_space(other[None])]))


def test_a_constant_patch_is_empty() -> None:
    assert empty_space(torch.zeros(1, 1, 4, 4, 4)).all()
