from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.transforms import RobustZScored, ZScored
from rarevox.transforms.intensity.robust import robust_z_score


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_normal_intensities_come_out_as_by_the_z_score() -> None:
    image = 300 + 40 * noise(1, 40, 40, 40)
    plain, robust = (t("image")({"image": image})["image"] for t in (ZScored, RobustZScored))
    assert (plain - robust).abs().max() < 0.06


def test_a_few_extreme_voxels_move_nothing() -> None:
    image = noise(1, 20, 20, 20)
    spoilt = image.clone()
    spoilt[0, 0, 0, :5] = 1e6
    rest = (slice(None), slice(1, None))
    assert (robust_z_score(spoilt)[rest] - robust_z_score(image)[rest]).abs().max() < 0.01
    assert float(robust_z_score(spoilt).max()) == 5.0
    assert float(robust_z_score(spoilt, clip=None).max()) > 1e5


@given(scale=st.floats(1e-2, 1e4), shift=st.floats(-1e3, 1e3), seed=st.integers(0, 50))
def test_linear_changes_of_intensity_do_not_matter(scale: float, shift: float, seed: int) -> None:
    image = noise(2, 6, 5, 4, seed=seed)
    moved = image * scale + (shift if abs(shift) < 1e2 * scale else 0)
    assert torch.allclose(robust_z_score(moved), robust_z_score(image), atol=1e-2)


def test_values_by_hand() -> None:
    """0 … 100: the percentiles 5, 50 and 95 are 5, 50 and 95, and ±1.6449 are the normal ones: s = 90 / 3.2897."""
    out = robust_z_score(torch.arange(101.0)[None])
    assert out[0, [0, 50, 95]].tolist() == pytest.approx([-50 * 3.28971 / 90, 0, 1.644854], abs=1e-4)


def test_only_the_region_decides_and_the_rest_is_zero() -> None:
    image = torch.cat([torch.arange(1.0, 102.0), torch.zeros(500)])[None]
    out = RobustZScored("image", "nonzero")({"image": image})["image"]
    assert torch.allclose(out[0, :101], robust_z_score(image[:, :101])[0])
    assert out[0, 101:].abs().sum() == 0


def test_constant_and_empty_regions_give_zeros() -> None:
    assert robust_z_score(torch.full((1, 3), 7.0)).tolist() == [[0.0, 0.0, 0.0]]
    assert robust_z_score(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0]]


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="percentiles are 95 and 5"):
        RobustZScored("image", lower=95, upper=5)
    with pytest.raises(ValueError, match="clip is 0"):
        RobustZScored("image", clip=0)
