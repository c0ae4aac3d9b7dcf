from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rarevox.transforms import NyulNormalised
from rarevox.transforms.intensity.nyul import PERCENTILES, learn_landmarks, onto_landmarks


def skewed(seed: int, count: int = 4000) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(3.0, 10.0, (1, count)).astype(np.float32))


def test_landmarks_by_hand() -> None:
    """0 … 100 and its double have the same relative landmarks; with percentiles 10, 50, 90 these are 0, ½, 1, whose
    median goes to 0 and whose spread of 1 to 2.5631, the distance of the normal percentiles 10 and 90."""
    line = torch.arange(101.0)[None]
    (found,) = learn_landmarks([(line, None), (2 * line + 5, None)], (10, 50, 90))
    assert found == pytest.approx([-1.281552, 0, 1.281552], abs=1e-5)


def test_the_order_of_the_images_and_their_scales_do_not_matter() -> None:
    images = [skewed(0), skewed(1) * 7 + 100, skewed(2) * 0.1]
    first, second = (learn_landmarks([(i, None) for i in order]) for order in (images, images[::-1]))
    third = learn_landmarks([(i * 3 - 2, None) for i in images])
    assert np.allclose(first, second, atol=2e-6)
    assert np.allclose(first, third, atol=1e-4)
    assert np.all(np.diff(first) > 0)


def test_images_have_the_standard_landmarks_afterwards() -> None:
    landmarks = learn_landmarks([(skewed(s), None) for s in range(3)])
    transform = NyulNormalised("image", "image", landmarks=landmarks)
    for scale, shift in ((1, 0), (50, 30), (0.01, -1)):
        out = transform({"image": skewed(9) ** 1.5 * scale + shift})["image"]
        assert np.allclose(np.percentile(out.numpy(), PERCENTILES), landmarks[0], atol=5e-3)


def test_the_order_of_intensities_is_kept_beyond_the_landmarks() -> None:
    values = skewed(3).sort().values
    out = NyulNormalised("image", "image", landmarks=learn_landmarks([(skewed(4), None)]))({"image": values})["image"]
    assert bool((out.diff() >= 0).all())
    assert float(out.max()) > float(np.percentile(out.numpy(), 99)) + 0.1


def test_pieces_are_np_interp_within_the_landmarks() -> None:
    own, standard = np.array([1.0, 2.0, 5.0, 9.0]), np.array([-3.0, 0.0, 0.5, 4.0])
    values = torch.linspace(1, 9, 50)
    assert np.allclose(onto_landmarks(own, standard)(values.clone()), np.interp(values, own, standard), atol=1e-5)


def test_landmarks_of_an_image_that_coincide_count_once() -> None:
    """Ties at 2 stand for (0 + 1)/2; 2 → 0.5, 4 → 2, 3 halfway; all alike only shifts."""
    change = onto_landmarks(np.array([2.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    assert change(torch.tensor([2.0, 3.0, 4.0])).tolist() == [0.5, 1.25, 2.0]
    assert onto_landmarks(np.full(3, 7.0), np.array([0.0, 1.0, 2.0]))(torch.tensor([7.0, 9.0])).tolist() == [0.0, 2.0]


def test_only_the_region_counts_and_each_channel_has_its_own() -> None:
    values = torch.cat([skewed(5), skewed(6) * 2 + 50])
    padded = torch.cat([values, torch.zeros(2, 3000)], 1)
    inside = padded != 0
    landmarks = learn_landmarks([(padded, inside)])
    assert landmarks == learn_landmarks([(values, None)])
    out = NyulNormalised("image", landmarks=landmarks)({"image": padded})["image"]
    assert out[:, 4000:].abs().sum() == 0
    assert abs(float(out[1, :4000].median())) < 0.02


def test_constant_and_empty_images_are_passed_over() -> None:
    useful = skewed(7)
    others = [torch.full_like(useful, 3.0), useful.clone()]
    masks = [None, torch.zeros_like(useful, dtype=torch.bool)]
    learnt = learn_landmarks([(useful, None), *zip(others, masks, strict=True)])
    assert learnt == learn_landmarks([(useful, None)])
    with pytest.raises(ValueError, match="channel 0 is constant or empty in every image"):
        learn_landmarks([(others[0], None)])
    with pytest.raises(ValueError, match="there is no image"):
        learn_landmarks([])


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="not learnt yet"):
        NyulNormalised("image")({"image": torch.rand(1, 9)})
    with pytest.raises(ValueError, match="for 1 channels, the image has 2"):
        NyulNormalised("image", landmarks=[list(range(11))])({"image": torch.rand(2, 9)})
    for landmarks in ([[1, 2]], [list(range(11))[::-1]]):
        with pytest.raises(ValueError, match="11 ascending numbers"):
            NyulNormalised("image", landmarks=landmarks)
    for percentiles in ([50], [20, 10], [-1, 50], [50, 101]):
        with pytest.raises(ValueError, match="within 0 … 100"):
            NyulNormalised("image", percentiles=percentiles)


def test_percentiles_of_both_ends_are_allowed() -> None:
    assert NyulNormalised("image", percentiles=[0, 50, 100]).percentiles == (0, 50, 100)
    assert list(itertools.chain(*learn_landmarks([(torch.arange(101.0)[None], None)], (0, 50, 100))))[1] == 0
