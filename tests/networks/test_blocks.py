"""The shared pieces: crops, checks, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rarevox.networks.blocks import check_choice, check_options, crop_faces, crop_to, initialise


def test_crop_faces_keeps_the_middle() -> None:
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert crop_faces(x, 1).flatten().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    assert crop_faces(x, 0).equal(x)


def test_crop_to_agrees_with_crop_faces() -> None:
    x = torch.randn(1, 1, 7, 9, 11)
    assert crop_to(x, (3, 5, 7)).equal(crop_faces(x, 2))


def test_initial_weights_are_he_normal() -> None:
    conv = nn.Conv3d(16, 64, 3)
    initialise(conv)
    # 27,648 draws: the sample deviation lies within 3 % of √(2 / fan-in) but for one case in 10¹¹.
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 27)), rel=0.03)
    assert conv.bias is not None
    assert not conv.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"in_channels": 0}, "in_channels must be a whole number of at least 1, got 0"),
        ({"out_channels": 2.0}, "out_channels must be a whole number"),
        ({"width": True}, "width must be a whole number"),
        ({"dropout": 1.0}, "dropout must be a probability of at least 0 and below 1, got 1.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    valid = {"in_channels": 1, "out_channels": 2, "spatial_dims": 3}
    with pytest.raises(ValueError, match=message):
        check_options(**{**valid, **options})


def test_a_choice_that_is_none_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="norm must be one of 'batch', 'instance', got 'group'"):
        check_choice("norm", "group", ("batch", "instance"))
