from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange

from rarevox.transforms import CTWindowd
from rarevox.transforms.intensity.ct_window import WINDOWS

SCAN = torch.linspace(-1024, 3000, 4 * 5 * 6).reshape(1, 4, 5, 6)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_is_monai_s_clipped_range(name: str) -> None:
    low, high = WINDOWS[name]
    expected = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(SCAN)
    assert torch.allclose(CTWindowd("image", name)({"image": SCAN})["image"], torch.as_tensor(expected), atol=1e-6)


def test_values_by_hand() -> None:
    """Soft tissue is −160 … 240: air is 0, water (0) 160/400, muscle (60) 220/400, bone 1."""
    out = CTWindowd("image")({"image": torch.tensor([[-1000.0, 0.0, 60.0, 900.0]])})["image"]
    assert out[0].tolist() == pytest.approx([0, 0.4, 0.55, 1])


def test_windows_become_channels_and_one_may_be_given_in_numbers() -> None:
    image = torch.cat([SCAN, SCAN + 10])
    out = CTWindowd("image", ["brain", [0, 160]])({"image": image})["image"]
    assert out.shape == (4, 4, 5, 6)
    assert torch.equal(out[:2], CTWindowd("image", "brain")({"image": image})["image"])
    assert torch.equal(out[2:], CTWindowd("image", [0, 160])({"image": image})["image"])


def test_whole_numbers_and_the_affine() -> None:
    image = MetaTensor(torch.full((1, 3, 3, 3), 40, dtype=torch.int16), affine=torch.diag(torch.tensor([2.0, 1, 1, 1])))
    out = CTWindowd("image", "brain")({"image": image})["image"]
    assert out.dtype == torch.float32
    assert torch.equal(out.affine, image.affine)
    assert float(out.mean()) == 0.5


@pytest.mark.parametrize(
    ("windows", "message"),
    [("lungs", "'lungs'; there are brain"), ([300, -100], "lower < upper"), ([1, 2, 3], "must be"), ([], "empty")],
)
def test_bad_windows(windows: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CTWindowd("image", windows)
