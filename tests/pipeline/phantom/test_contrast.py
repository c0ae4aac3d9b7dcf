"""The contrast: tissues, lesions and noise as T1 and FLAIR show them."""

from __future__ import annotations

import numpy as np
import pytest

from rarevox.pipeline.phantom.anatomy import CHANNELS, Atlas, template_positions, warp_atlas
from rarevox.pipeline.phantom.contrast import Tissue, _blend, _mix, _scan, render
from rarevox.pipeline.phantom.lesions import Blob

from .conftest import SPACING_MM


def uniform_maps(**shares: float) -> dict[str, np.ndarray]:
    return {name: np.full((24, 24, 24), shares.get(name, 0.0), np.float32) for name in CHANNELS}


def test_partial_volume_is_the_mean_of_its_tissues() -> None:
    tissue = Tissue(white=1.0, grey=0.6, csf=0.2)
    mixed = _mix(uniform_maps(white=0.5, grey=0.25, csf=0.25), tissue, detail=0.0)
    np.testing.assert_allclose(mixed, 0.5 * 1.0 + 0.25 * 0.6 + 0.25 * 0.2, rtol=1e-6)  # 0.70


def test_the_noise_is_rician() -> None:
    # On no signal Rician noise is Rayleigh: mean/deviation = √(π/2) / √(2 − π/2) = 1.2533 / 0.6551 = 1.913.
    zero, one = np.zeros((40, 40, 40), np.float32), np.ones((40, 40, 40), np.float32)
    scan = _scan(np.random.default_rng(0), zero, one, 2.0, 0.1)
    assert scan.mean() / scan.std() == pytest.approx(1.913, rel=0.02)
    # Far above the noise it is Gaussian around √(s² + σ²): doubling σ doubles the deviation.
    spreads = [np.diff(_scan(np.random.default_rng(0), one, one, 2.0, noise), axis=0).std() for noise in (0.02, 0.04)]
    assert spreads[1] / spreads[0] == pytest.approx(2, rel=0.03)


def test_a_lesion_outshines_grey_matter_by_its_contrast() -> None:
    maps = uniform_maps(white=1.0, brain=1.0)
    lesion = Blob((slice(10, 14),) * 3, np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), bool))

    def scan(above: float, lesions: list[Blob]) -> np.ndarray:
        return render(np.random.default_rng(5), maps, lesions, spacing_mm=2.0, contrast=(above, above), noise=0.0)

    healthy, faint, plain = scan(0.0, []), scan(0.0, [lesion]), scan(0.6, [lesion])
    outside = np.ones((24, 24, 24), bool)
    outside[lesion.box] = False
    for image in (faint, plain):
        np.testing.assert_array_equal(image[:, outside], healthy[:, outside])
    # FLAIR: grey·(1 + 0.6) against grey·(1 + 0); the same lesion on T1.
    np.testing.assert_allclose(plain[1][lesion.box] / faint[1][lesion.box], 1.6, rtol=1e-5)
    np.testing.assert_array_equal(plain[0], faint[0])
    # A lesion of contrast 0 is grey matter in white: 1.25 on FLAIR, give or take 2 × 3 % twice and 5 % unevenness.
    assert 1.25 / 1.19 < (faint[1] / healthy[1])[lesion.box].mean() < 1.25 * 1.19
    # On T1 it is darker than white, at most by 1.2 of the step to grey, (1 − 0.68)·1.2 = 0.38 and 6 % twice.
    assert 0.5 < (faint[0] / healthy[0])[lesion.box].mean() <= 1


def test_a_half_membership_moves_half_way() -> None:
    image = np.full((3, 3, 3), 1.0, np.float32)
    blob = Blob((slice(1, 2),) * 3, np.full((1, 1, 1), 0.5, np.float32), np.ones((1, 1, 1), bool))
    _blend(image, blob, np.ones((3, 3, 3), np.float32), 2.0)
    assert image[1, 1, 1] == 1.5 and image.sum() == 26 + 1.5


def test_tissues_are_ordered_as_on_t1_and_flair(atlas: Atlas) -> None:
    maps = warp_atlas(atlas, template_positions(np.random.default_rng(0), (56, 69, 60), SPACING_MM))
    t1, flair = render(np.random.default_rng(1), maps, [], spacing_mm=SPACING_MM, contrast=(0.1, 0.1), noise=0.02)
    t1_of, flair_of = (
        {name: np.median(image[maps[name] > 0.85]) for name in ("white", "grey", "ventricles")} for image in (t1, flair)
    )
    assert t1_of["ventricles"] < t1_of["grey"] < t1_of["white"]
    assert flair_of["ventricles"] < flair_of["white"] < flair_of["grey"]
