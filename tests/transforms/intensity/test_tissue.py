"""The tissue that all channels share."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from rarevox.transforms import NyulNormalised, ZScored, common_tissue


@given(seed=st.integers(0, 1000), dense=st.floats(0.3, 0.9), shape=st.sampled_from([(7, 6, 5), (9, 8), (12,)]))
def test_it_is_where_all_channels_have_tissue_with_what_that_encloses(
    seed: int, dense: float, shape: tuple[int, ...]
) -> None:
    image = (np.random.default_rng(seed).random((3, *shape)) < dense).astype(np.float32)
    expected = np.logical_and.reduce([ndimage.binary_fill_holes(channel) for channel in image if channel.any()])
    assert np.array_equal(common_tissue(torch.from_numpy(image))[0].numpy(), expected)
    assert np.array_equal(common_tissue(image)[0].numpy(), expected)


def test_a_missing_channel_says_nothing() -> None:
    image = torch.tensor([[0.0, 2, 3, 0], [0.0, 0, 0, 0]])
    assert common_tissue(image).tolist() == [[False, True, True, False]]
    assert not common_tissue(torch.zeros(2, 3, 3)).any()


def test_a_single_slice_encloses_what_a_ring_is_around() -> None:
    ring = torch.zeros(1, 5, 5)
    ring[0, 1:4, 1:4] = 1
    ring[0, 2, 2] = 0
    assert common_tissue(ring)[0, 2, 2] and torch.equal(common_tissue(ring[..., None])[..., 0], common_tissue(ring))


def test_what_one_channel_shows_outside_moves_nothing() -> None:
    """A head stripped in one channel: that with skin and fat in the other comes out as the one without."""
    random = np.random.default_rng(0)
    scan = np.zeros((2, 12, 12, 12), np.float32)
    scan[:, 3:9, 3:9, 3:9] = random.normal(100, 10, (2, 6, 6, 6))
    scan[0, 5, 5, 5] = 0  # fluid: no voxel that counts, nor a hole in what the other shows
    whole = scan.copy()
    whole[1, 0:3] = 700
    landmarks = [[-1.0, 0.0, 1.0]] * 2
    for step in (
        ZScored("image", "common"),
        NyulNormalised("image", "common", landmarks=landmarks, percentiles=[10, 50, 90]),
    ):
        stripped, with_skin = (step({"image": torch.from_numpy(one)})["image"] for one in (scan, whole))
        assert torch.equal(stripped, with_skin)
        assert not with_skin[:, 0:3].any() and with_skin[1, 5, 5, 5] != 0 and with_skin[0, 5, 5, 5] == 0
    nonzero = ZScored("image", "nonzero")
    assert torch.equal(
        nonzero({"image": torch.from_numpy(scan)})["image"],
        ZScored("image", "common")({"image": torch.from_numpy(scan)})["image"],
    )
    assert nonzero({"image": torch.from_numpy(whole)})["image"][1, 0:3].all()
