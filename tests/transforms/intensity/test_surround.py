from __future__ import annotations

import torch
from monai.data import MetaTensor

from rarevox.transforms import FillSurroundd
from rarevox.transforms.told import WARNINGS


def filled(image: torch.Tensor) -> torch.Tensor:
    return FillSurroundd("image")({"image": image})["image"]


def surrounded() -> MetaTensor:
    """Two channels of ones, of which the first is NaN but for a block in its middle: 4³ − 2³ = 56 voxels."""
    image = MetaTensor(torch.ones(2, 4, 4, 4))
    image[0] = torch.nan
    image[0, 1:3, 1:3, 1:3] = 1.0
    return image


def test_the_surround_becomes_zero_and_is_told() -> None:
    image = filled(surrounded())
    assert float(image[0].sum()) == 8
    assert float(image[1].sum()) == 64
    assert "56 NaN voxels" in image.meta[WARNINGS]


def test_what_is_no_surround_stays() -> None:
    hole = torch.ones(1, 4, 4, 4)
    hole[0, 1, 1, 1] = torch.nan
    infinite = surrounded()
    infinite[1, 0, 0, 0] = torch.inf
    both = surrounded()
    both[1, 1, 1, 1] = torch.nan
    for image in (hole, infinite, both):
        assert torch.isnan(filled(image)).any()


def test_a_sound_image_is_passed_on() -> None:
    image = torch.ones(1, 4, 4, 4)
    assert filled(image) is image
