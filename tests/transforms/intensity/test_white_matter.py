from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms import WhiteMatterZScored
from rarevox.transforms.intensity.white_matter import histogram_peak, white_matter_z_score

TISSUES = {"csf": (30, 8, 6000), "grey": (60, 7, 30_000), "white": (100, 5, 24_000)}


def brain(whole: bool = False, seed: int = 0) -> np.ndarray:
    """Intensities of a T1-weighted brain: three normal distributions, the grey peak higher than or like the white."""
    random = np.random.default_rng(seed)
    values = np.concatenate([random.normal(mean, std, n) for mean, std, n in TISSUES.values()])
    return np.rint(values) if whole else values


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_last_peak_is_the_white_matter_s(whole: bool, seed: int) -> None:
    peak, width = histogram_peak(brain(whole, seed), "last")
    assert peak == pytest.approx(100, abs=1.5)
    assert width == pytest.approx(5, abs=1)


def test_the_largest_peak_is_the_most_frequent_intensity() -> None:
    """90 000 voxels of deviation 7 at 60 are higher than 24 000 of deviation 5 at 100: 90/7 > 24/5."""
    values = np.concatenate([brain(), np.random.default_rng(1).normal(60, 7, 60_000)])
    assert histogram_peak(values, "largest")[0] == pytest.approx(60, abs=1.5)


def test_bright_lesions_do_not_move_it() -> None:
    random = np.random.default_rng(2)
    lesions = random.normal(160, 10, 900)
    for which in ("last", "largest"):
        own, spoilt = (histogram_peak(values, which) for values in (brain(), np.concatenate([brain(), lesions])))
        assert spoilt == pytest.approx(own, abs=1.5)


def test_scanners_scales_do_not_matter() -> None:
    image = torch.from_numpy(brain().astype(np.float32))[None]
    first = white_matter_z_score(image, peaks=["last"])
    for scale, shift in ((13.0, 0.0), (0.01, 5.0)):
        assert torch.allclose(white_matter_z_score(image * scale + shift, peaks=["last"]), first, atol=0.05)
    white = first[0, -TISSUES["white"][2] :]
    assert float(white.mean()) == pytest.approx(0, abs=0.3)
    assert float(white.std()) == pytest.approx(1, abs=0.2)


def test_a_peak_for_each_channel_inside_the_brain_alone() -> None:
    inside = torch.from_numpy(brain().astype(np.float32))
    channel = torch.cat([inside, torch.zeros(90_000)])
    image = torch.stack([channel, channel])
    out = WhiteMatterZScored("image", peaks=["last", "largest"])({"image": image})["image"]
    assert out[:, inside.numel() :].abs().sum() == 0
    for number, which in enumerate(("last", "largest")):
        peak, width = histogram_peak(inside.numpy(), which)
        assert torch.allclose(out[number, : inside.numel()], (inside - peak) / width, atol=1e-3)


def test_constant_empty_and_single_voxels() -> None:
    assert white_matter_z_score(torch.full((1, 9), 7.0)).tolist() == [[0.0] * 9]
    assert white_matter_z_score(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0] * 3]
    assert white_matter_z_score(torch.tensor([[5.0]])).tolist() == [[0.0]]


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="expected largest or last"):
        WhiteMatterZScored("image", peaks="first")
    with pytest.raises(ValueError, match="names 2 channels, the image has 3"):
        WhiteMatterZScored("image", peaks=["last", "last"])({"image": torch.rand(3, 4, 4, 4)})
