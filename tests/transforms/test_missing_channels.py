"""Stand-ins while a scan is read, zeros after normalisation, names in the metadata."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from rarevox.transforms.missing_channels import ZeroMissingChannelsd
from rarevox.transforms.reading.stand_ins import MISSING, with_stand_ins

NAMES = ["FLAIR", "T1", "T2"]


def test_every_channel_has_a_file_the_others_in_their_places() -> None:
    item = {"case": "a", "image": ["f", "t2"], MISSING: ["T1"]}
    assert with_stand_ins(item, NAMES)["image"] == ["f", "f", "t2"]
    assert with_stand_ins({"image": ["t1"], MISSING: ["FLAIR", "T2"]}, NAMES)["image"] == ["t1"] * 3
    for whole in ({"image": ["f", "t1", "t2"]}, {"image": "all.nii", MISSING: ["T1"]}):
        assert with_stand_ins(whole, NAMES) == whole
    with pytest.raises(ValueError, match="1 files for the channels FLAIR, T2"):
        with_stand_ins({"image": ["f"], MISSING: ["T1"]}, NAMES)


def test_channels_become_zero_and_the_metadata_say_so() -> None:
    image = MetaTensor(torch.ones(3, 2, 2, 2))
    out = ZeroMissingChannelsd("image", NAMES)({"image": image, MISSING: ["T1"]})
    assert out["image"].sum((1, 2, 3)).tolist() == [8, 0, 8]
    assert out["image"].meta[MISSING] == "T1"
    assert MISSING not in out
    assert image.sum() == 24  # what came in is left
    # Of three channels through two CT windows, the first window's come first.
    twice = ZeroMissingChannelsd("image", NAMES)({"image": MetaTensor(torch.ones(6, 2, 2, 2)), MISSING: ["T1"]})
    assert twice["image"].sum((1, 2, 3)).tolist() == [8, 0, 8, 8, 0, 8]
    same = ZeroMissingChannelsd("image", NAMES)({"image": image})
    assert same["image"] is image
