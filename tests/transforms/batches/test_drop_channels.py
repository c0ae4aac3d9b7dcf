"""Channel dropout: shares as asked, never all, never a required one, and a patch alike in every batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rarevox.transforms.batches.drop_channels import BatchDropChannels
from rarevox.transforms.batches.intensity import BatchFlip

NAMES = ["FLAIR", "T1", "T2"]


def _dropped(transform: BatchDropChannels, count: int) -> np.ndarray:
    batch = {"image": torch.ones(count, 3, 2, 1, 1)}
    out = transform(batch, [np.random.default_rng((0, n)) for n in range(count)])["image"]
    assert ((out == 0) | (out == 1)).all()
    flat = out.reshape(count, 3, -1)
    assert torch.equal(flat.amin(-1), flat.amax(-1))  # a channel goes as a whole
    return flat[..., 0].numpy() == 0


def test_each_channel_goes_with_its_probability_and_never_all() -> None:
    count, p = 2000, 0.4
    gone = _dropped(BatchDropChannels("image", p, NAMES), count)
    assert not gone.all(1).any()
    # All three would go with p³, and then one of three stays: p − p³/3 for each; five deviations of a share.
    share = p - p**3 / 3
    assert np.abs(gone.mean(0) - share).max() < 5 * math.sqrt(share * (1 - share) / count)


def test_required_channels_stay_and_all_others_may_go() -> None:
    gone = _dropped(BatchDropChannels("image", 0.5, NAMES, ["T1"]), 400)
    assert not gone[:, 1].any()
    assert gone[:, [0, 2]].all(1).any()


def test_a_channel_goes_from_every_ct_window() -> None:
    rows = [np.random.default_rng((0, n)) for n in range(50)]
    out = BatchDropChannels("image", 0.5, NAMES)({"image": torch.ones(50, 6, 2)}, rows)["image"]
    assert torch.equal(out[:, :3], out[:, 3:]) and 0 < out.sum() < out.numel()


def test_a_patch_comes_out_alike_in_every_batch() -> None:
    transform = BatchDropChannels("image", 0.5, NAMES)
    together = _dropped(transform, 5)
    for row in range(5):
        alone = transform({"image": torch.ones(1, 3, 1)}, [np.random.default_rng((0, row))])["image"]
        assert np.array_equal(alone[0, :, 0].numpy() == 0, together[row])


def test_probability_zero_and_what_comes_before() -> None:
    image = torch.arange(6.0).reshape(1, 3, 2)
    flip = BatchFlip("image", axes=[0], prob=1.0)
    out = BatchDropChannels("image", 0.0, NAMES, before=flip)({"image": image.clone()}, [np.random.default_rng(0)])
    assert torch.equal(out["image"], image.flip(2))


@pytest.mark.parametrize(
    ("prob", "channels", "required", "said"),
    [
        (0.2, NAMES, ["PD"], "'PD'"),
        (1.0, NAMES, [], "below 1"),
        (0.2, ["FLAIR"], [], "no channel"),
        (0.2, NAMES, NAMES, "no channel"),
        (-0.1, NAMES, [], "0 to 1"),
    ],
)
def test_wrong_options(prob: float, channels: list[str], required: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BatchDropChannels("image", prob, channels, required)
