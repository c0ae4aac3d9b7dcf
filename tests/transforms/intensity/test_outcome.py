"""Normalisation that yields nothing: refused where it would be NaN, told where it is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from rarevox.transforms import CTWindowd, Normaliser, ScanReader, ZScored
from rarevox.transforms.intensity.outcome import NormalisationError
from rarevox.transforms.told import WARNINGS
from tests.contracts.test_normalisers import FOUND, make

BAD = [torch.nan, torch.inf, -torch.inf]


def scan() -> MetaTensor:
    generator = torch.Generator().manual_seed(0)
    return MetaTensor(200 + 30 * torch.randn(2, 12, 11, 10, generator=generator))


def told(image: MetaTensor) -> str:
    return str(image.meta.get(WARNINGS, ""))


@pytest.mark.parametrize("kind", FOUND)
def test_sound_intensities_are_told_of_nothing(kind: type[Normaliser]) -> None:
    assert told(make(kind)({"image": scan()})["image"]) == ""


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("kind", FOUND)
def test_what_is_no_number_is_refused(kind: type[Normaliser], value: float) -> None:
    image = scan()
    image[1, 0, 0, 0] = value
    with pytest.raises(NormalisationError, match=r"channel 2 of the scan holds NaN or infinite voxels \(1 of 1320\)"):
        make(kind)({"image": image})


@pytest.mark.parametrize("kind", FOUND)
def test_what_is_no_number_outside_the_region_does_not_count(kind: type[Normaliser]) -> None:
    image = scan()
    image[:, 0] = torch.nan
    mask = torch.ones(1, 12, 11, 10)
    mask[:, 0] = 0
    out = make(kind, region="mask")({"image": image, "mask": mask})["image"]
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("value", [0.0, 7.0, 1e30])
@pytest.mark.parametrize("kind", FOUND)
def test_a_constant_channel_is_told(kind: type[Normaliser], value: float) -> None:
    image = scan()
    image[1] = value
    out = make(kind, region="image")({"image": image})["image"]
    assert bool(torch.isfinite(out).all())
    assert told(out) == "channel 2 is the same everywhere after normalisation: it carries nothing"


@pytest.mark.parametrize("kind", FOUND)
def test_a_region_without_voxels_is_told(kind: type[Normaliser]) -> None:
    out = make(kind, region="mask")({"image": scan(), "mask": torch.zeros(1, 12, 11, 10)})["image"]
    assert told(out).splitlines() == [f"channel {n} has no voxel in the region of its normalisation" for n in (1, 2)]


@pytest.mark.parametrize("value", [1e7, 1e30, -1e30])
def test_a_voxel_that_outweighs_all_others_is_told(value: float) -> None:
    """Of n voxels, one of size v: mean v/n, variance v²(n−1)/n², so its z-score is √(n−1) whatever v is."""
    image = scan()
    image[0, 0, 0, 0] = value
    out = ZScored("image")({"image": image})["image"]
    n = image[0].numel()
    assert abs(float(out[0, 0, 0, 0])) == pytest.approx((n - 1) ** 0.5, rel=1e-3)
    assert told(out).startswith("channel 1: 1 voxel(s) of extreme intensity outweigh all others")
    assert len(told(out).splitlines()) == 1


def test_a_few_bright_voxels_are_no_matter() -> None:
    """Metal in a scan: ten voxels of 4000 against noise of 30; the others keep their contrast."""
    image = scan()
    image[0, 0, 0] = 4000
    assert told(ZScored("image")({"image": image})["image"]) == ""


def test_a_window_that_leaves_nothing_is_told() -> None:
    """Intensities of MRI, 800 and more, all lie above the window of the brain, 0 to 80."""
    image = scan() + 1000
    out = CTWindowd("image", ["brain", (0, 2000)])({"image": image})["image"]
    assert [line.split(" is the same")[0] for line in told(out).splitlines()] == ["channel 1", "channel 2"]
    assert "Hounsfield" in told(out)


@pytest.mark.parametrize("value", BAD)
def test_a_window_refuses_what_is_no_number(value: float) -> None:
    image = scan()
    image[0, 0, 0, 0] = value
    with pytest.raises(NormalisationError, match="channel 1"):
        CTWindowd("image")({"image": image})


def test_what_reading_told_is_kept(tmp_path: Path) -> None:
    from monai.transforms import LoadImaged

    from tests.hostile.of_nifti import constant_channel

    path = constant_channel(tmp_path)
    image = LoadImaged("image", reader=ScanReader(), ensure_channel_first=True)({"image": path})["image"]
    lines = told(ZScored("image")({"image": image})["image"]).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "every voxel of channel 2 is 0",
        "channel 2 is the same everywhere after normalisation",
    ]
