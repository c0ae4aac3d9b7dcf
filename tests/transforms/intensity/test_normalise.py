from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from rarevox.transforms import ZScored
from rarevox.transforms.intensity.normalise import z_score


@given(scale=st.floats(1e-3, 1e6), shift=st.floats(-1e5, 1e5), seed=st.integers(0, 100))
def test_linear_changes_of_intensity_do_not_matter(scale: float, shift: float, seed: int) -> None:
    image = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = image * scale + (shift if abs(shift) < 1e3 * scale else 0)
    assert torch.allclose(z_score(moved), z_score(image), atol=1e-2)


def test_values_by_hand() -> None:
    """1, 2, 3 have mean 2 and variance 2/3 (n in the denominator), so 1 → −1/√(2/3) = −√1.5."""
    out = z_score(torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.allclose(out, torch.tensor([[-(1.5**0.5), 0.0, 1.5**0.5]]))


def test_nonzero_takes_each_channel_by_itself_and_keeps_zeros() -> None:
    image = torch.tensor([[0.0, 2.0, 4.0], [5.0, 0.0, 7.0]])
    out = ZScored("image", "nonzero")({"image": image})["image"]
    assert out.tolist() == [[0.0, -1.0, 1.0], [-1.0, 0.0, 1.0]]


def test_mask_decides_and_is_required() -> None:
    image = torch.tensor([[1.0, 3.0, 100.0]])
    out = ZScored("image", "mask")({"image": image, "mask": torch.tensor([[1, 1, 0]])})["image"]
    assert out.tolist() == [[-1.0, 1.0, 0.0]]
    with pytest.raises(KeyError, match="--mask"):
        ZScored("image", "mask")({"image": image})


def test_constant_and_empty_regions_give_zeros() -> None:
    assert z_score(torch.full((1, 3), 7.0)).tolist() == [[0.0, 0.0, 0.0]]
    assert z_score(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0]]


def test_the_affine_survives() -> None:
    image = MetaTensor(torch.randn(1, 3, 3, 3), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))
    assert torch.equal(ZScored("image")({"image": image})["image"].affine, image.affine)


def test_unknown_region() -> None:
    with pytest.raises(ValueError, match="'brain'"):
        ZScored("image", "brain")
