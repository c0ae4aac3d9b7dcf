"""What every normalisation must obey; a new subclass of Normaliser is found by itself."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from rarevox import transforms
from rarevox.transforms import Normaliser, NyulNormalised
from rarevox.transforms.intensity.normaliser import REGIONS

FOUND = sorted(
    (c for c in vars(transforms).values() if isinstance(c, type) and issubclass(c, Normaliser) and c is not Normaliser),
    key=lambda c: c.__name__,
)
OPTIONS = {NyulNormalised: {"landmarks": [[-3, -1.3, -0.8, -0.5, -0.2, 0, 0.2, 0.5, 0.8, 1.3, 3]] * 2}}


def make(kind: type[Normaliser], **options: object) -> Normaliser:
    entry = {"_target_": f"transforms.{kind.__name__}", "keys": "image", **OPTIONS.get(kind, {}), **options}
    return ConfigParser({"normalisation": entry}).get_parsed_content("normalisation")


def scan() -> MetaTensor:
    values = 200 + 30 * torch.randn(2, 12, 11, 10, generator=torch.Generator().manual_seed(0))
    values[:, :3] = 0
    return MetaTensor(values, affine=torch.diag(torch.tensor([2.0, 1.0, 1.5, 1.0])))


@pytest.mark.parametrize("kind", FOUND)
@pytest.mark.parametrize("region", REGIONS)
def test_shape_type_and_affine(kind: type[Normaliser], region: str) -> None:
    for image in (scan(), scan().short(), scan().double()):
        before = image.clone()
        out = make(kind, region=region)({"image": image, "mask": image[:1] > 0})["image"]
        assert torch.equal(image, before)
        assert isinstance(out, MetaTensor)
        assert (out.shape, out.dtype) == (image.shape, torch.float32)
        assert torch.equal(out.affine, image.affine)
        assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("kind", FOUND)
def test_outside_is_zero_unless_kept_and_does_not_count(kind: type[Normaliser]) -> None:
    image = scan()
    inside = (image[:1] > 0).as_tensor()
    spoilt = torch.where(inside, image.as_tensor(), torch.tensor(1e7))
    kept, other, zeros = (
        make(kind, region="mask", keep_outside=keep)({"image": volume, "mask": inside})["image"]
        for keep, volume in ((True, image), (True, spoilt), (False, image))
    )
    both = inside.expand_as(kept)
    assert torch.equal(kept[both], other[both])
    assert torch.equal(kept[both], zeros[both])
    assert float(zeros[~both].abs().sum()) == 0
    assert float(kept[~both].abs().min()) > 0


@pytest.mark.parametrize("kind", FOUND)
def test_channels_are_independent_and_empty_ones_are_zero(kind: type[Normaliser]) -> None:
    image = scan()
    changed = image.clone()
    changed[1] = 0
    transform = make(kind, region="nonzero")
    first, second = (transform({"image": volume})["image"] for volume in (image, changed))
    assert torch.equal(first[0], second[0])
    assert float(second[1].abs().sum()) == 0


@pytest.mark.parametrize("kind", FOUND)
def test_bright_stays_bright_in_units_near_one(kind: type[Normaliser]) -> None:
    """Monotone inside, median near 0 and deviation near 1 on normal intensities, as augmentation expects them."""
    values = torch.randn(2, 60_000, generator=torch.Generator().manual_seed(1)).sort().values
    out = make(kind, region="image")({"image": 50 + 8 * values})["image"]
    assert bool((out.diff(dim=1) >= 0).all())
    assert float(out.median()) == pytest.approx(0, abs=0.3)
    assert float(out.std()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("kind", FOUND)
def test_a_wrong_region_and_a_missing_mask_are_named(kind: type[Normaliser]) -> None:
    with pytest.raises(ValueError, match="region is 'brain'"):
        kind("image", region="brain")
    with pytest.raises(KeyError, match="--mask"):
        make(kind, region="mask")({"image": scan()})
