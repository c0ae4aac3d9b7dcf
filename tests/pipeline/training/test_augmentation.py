"""How strong the augmentation is: one key, for patches one by one and for batches on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import compose
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.plain_values import check_values

LIGHT = ["RandFlipd", "RandScaleIntensityd", "RandShiftIntensityd", "RandGaussianNoised"]
STRONG = [*LIGHT[:1], "KeepForegroundd", *LIGHT[1:3], "RandAdjustContrastd", LIGHT[3], "RandGaussianSmoothd"]


def made(key: str = "augmentation", *settings: str, configs: tuple[str, ...] = (), network: str | None = None) -> Any:
    config = compose("train", network=network, config_files=configs, settings=["in_channels=1", *settings]).config
    return build(config, key)


def names(transform: Any) -> list[str]:
    return [type(one).__name__ for one in transform.transforms]


def test_strong_adds_shapes_contrast_and_blur_and_more_of_the_rest() -> None:
    light, strong = made(), made(configs=("augmented",))
    assert names(light) == LIGHT
    assert names(strong) == STRONG
    assert names(made("augmentation", "intensity_change=0.3")) == [*LIGHT[:3], "RandAdjustContrastd", LIGHT[3]]
    noise = [next(t for t in one.transforms if type(t).__name__ == "RandGaussianNoised") for one in (light, strong)]
    assert [one.rand_gaussian_noise.std for one in noise] == [0.05, 0.1]


def test_on_the_device_it_is_the_same_in_batches() -> None:
    light = made("batch_augmentation", configs=("device",))
    strong = made("batch_augmentation", configs=("device", "augmented"))
    assert names(light) == ["BatchFlip", "BatchScaleIntensity", "BatchShiftIntensity", "BatchGaussianNoise"]
    assert names(strong) == [
        *("BatchFlip", "BatchAffine", "BatchScaleIntensity", "BatchShiftIntensity"),
        *("BatchAdjustContrast", "BatchGaussianNoise", "BatchGaussianSmooth"),
    ]
    assert names(made(configs=("device", "augmented"))) == [], "not twice"


def test_artefacts_go_with_either() -> None:
    found = [names(made(configs=("mri_artefacts", *more))) for more in ((), ("augmented",))]
    assert ["KeepForegroundd" in one for one in found] == [False, True]


@pytest.mark.parametrize("batches", [False, True])
def test_slices_are_turned_within_themselves(batches: bool) -> None:
    """A volume that varies across its slices alone stays as it is, but for its intensities."""
    configs = ("device", "augmented") if batches else ("augmented",)
    key = "batch_augmentation" if batches else "augmentation"
    transform = made(key, "mirror_axes=[]", configs=configs, network="highresnet2d")
    shapes = [t for t in transform.transforms if type(t).__name__ in ("KeepForegroundd", "BatchAffine")]
    assert len(shapes) == 1
    ramp = torch.arange(5.0).expand(1, 12, 12, 5)
    turned = torch.zeros(1, 12, 12, 5)
    turned[:, 2:5] = 1
    changed = 0
    for seed in range(20):
        label = torch.ones(1, 12, 12, 5, dtype=torch.uint8)
        image = torch.cat([ramp, turned])
        if batches:
            batch = {"image": image[None].clone(), "label": label[None].clone()}
            shapes[0].prob = 1.0
            out = shapes[0](batch, [np.random.default_rng(seed)])["image"][0]
        else:
            out = Compose(shapes[:1]).set_random_state(seed)({"image": image.clone(), "label": label.clone()})["image"]
        assert torch.allclose(torch.as_tensor(out[:1]), ramp, atol=1e-4)
        changed += not torch.allclose(torch.as_tensor(out[1:]), turned, atol=1e-4)
    assert changed > 3


def test_rotations_are_about_the_axes_asked_for() -> None:
    transforms = made("augmentation", "rotations=[0,0,0.2]", configs=("augmented",)).transforms
    affine = next(t for t in transforms if type(t).__name__ == "KeepForegroundd")
    assert tuple(affine.transform.rand_affine.rand_affine_grid.rotate_range) == (0, 0, 0.2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"augmentation_strength": "stronger"}, "expected light or strong"),
        ({"intensity_change": -0.1}, "a number from 0 to 1"),
        ({"rotations": [0.3, 0.3]}, "expected three angles"),
        ({"rotations": [0.3, -0.3, 0.3]}, "expected three angles"),
    ],
)
def test_other_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_values(values)
