from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from rarevox.transforms.planting.patches import Patches, grown


def test_grown_is_a_dilation_by_the_full_neighbourhood() -> None:
    masks = np.random.default_rng(0).random((2, 7, 6, 5)) < 0.05
    expected = np.stack([ndimage.binary_dilation(mask, np.ones((3, 3, 3))) for mask in masks])
    np.testing.assert_array_equal(grown(torch.from_numpy(masks)).numpy(), expected)


def test_the_border_comes_off_as_it_went_on() -> None:
    image, labels = torch.rand(2, 3, 5, 6, 7), torch.randint(0, 2, (2, 5, 6, 7), dtype=torch.uint8)
    patches = Patches.of(image, labels, labels > 0)
    assert torch.equal(patches.inner(patches.image), image) and torch.equal(patches.inner(patches.labels), labels)


def test_healthy_tissue_is_content_beside_nothing_that_is_labelled() -> None:
    labels, content = torch.zeros(1, 9, 9, 9, dtype=torch.uint8), torch.ones(1, 9, 9, 9, dtype=torch.bool)
    labels[0, 4, 4, 4], labels[0, 0, 0, 0], content[0, 8] = 1, 255, False
    patches = Patches.of(torch.rand(1, 2, 9, 9, 9), labels, content)
    healthy = ~patches.inner(patches.tissue()).isnan().any(1)[0]
    expected = torch.ones(9, 9, 9, dtype=torch.bool)
    expected[3:6, 3:6, 3:6] = expected[:2, :2, :2] = expected[8] = False
    assert torch.equal(healthy, expected)
    assert patches.tissue().isnan()[..., 0].all()  # the corner of the border, at which there is no voxel
