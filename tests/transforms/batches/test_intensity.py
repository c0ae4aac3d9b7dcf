from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast, Flip, GaussianSmooth, ScaleIntensity, ShiftIntensity
from scipy.stats import kstest

from rarevox.transforms import (
    BatchAdjustContrast,
    BatchAffine,
    BatchCompose,
    BatchFlip,
    BatchGaussianNoise,
    BatchGaussianSmooth,
    BatchScaleIntensity,
    BatchShiftIntensity,
)

EVERY = [
    BatchFlip(["image", "label"], (0, 1, 2)),
    BatchScaleIntensity("image", 0.3),
    BatchShiftIntensity("image", [0.1, 0.5]),
    BatchGaussianNoise("image", 0.2, 0.5),
    BatchAffine(rotate=(0.3, 0.3, 0.3), scale=(0.2, 0.2, 0.2), shear=0.1),
    BatchAdjustContrast("image", (0.5, 2.0)),
    BatchGaussianSmooth("image", prob=0.5),
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def batch(rows: int = 6, device: str = "cpu") -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    image = torch.rand(rows, 2, 8, 7, 6, generator=source)
    label = torch.randint(0, 3, (rows, 1, 8, 7, 6), generator=source, dtype=torch.uint8)
    return {"image": image.to(device), "label": label.to(device)}


def generators(numbers: list[int]) -> list[np.random.Generator]:
    return [np.random.default_rng((5, number)) for number in numbers]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)
def test_a_patch_comes_out_the_same_in_every_batch(transform, device: str) -> None:
    whole = transform(batch(device=device), generators(list(range(6))))
    for order in ([3, 1, 5], [0], [4, 2]):
        given = {key: value[order].clone() for key, value in batch(device=device).items()}
        part = transform(given, generators(order))
        for key, value in part.items():
            assert value.device.type == device
            assert torch.allclose(value.float(), whole[key][order].float(), atol=1e-6)


@pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)
def test_probabilities_0_and_1(transform) -> None:
    chance = transform.prob
    try:
        transform.prob = 0.0
        same = transform(batch(), generators(list(range(6))))
        assert all(torch.equal(same[key], value) for key, value in batch().items())
        transform.prob = 1.0
        changed = transform(batch(), generators(list(range(6))))
        assert all(not torch.equal(a, b) for a, b in zip(changed["image"], batch()["image"], strict=True))
        assert changed["label"].dtype == torch.uint8
    finally:
        transform.prob = chance


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_are_monais(axis: int) -> None:
    flipped = BatchFlip(["image", "label"], [axis], prob=1)(batch(), generators(list(range(6))))
    for key, value in batch().items():
        expected = torch.stack([torch.as_tensor(Flip(axis)(volume)) for volume in value])
        assert torch.equal(flipped[key], expected)


def test_intensities_are_monais() -> None:
    """With limits that leave one value: x·(1 + 0.3), then x + 0.2."""
    steps = [BatchScaleIntensity("image", [0.3, 0.3], 1), BatchShiftIntensity("image", [0.2, 0.2], 1)]
    found = BatchCompose(steps)(batch(), generators(list(range(6))))["image"]
    scale, shift = ScaleIntensity(minv=None, maxv=None, factor=0.3), ShiftIntensity(0.2)
    expected = torch.stack([torch.as_tensor(shift(scale(image))) for image in batch()["image"]])
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [BatchScaleIntensity, BatchShiftIntensity])
def test_channels_change_by_themselves_where_asked(kind) -> None:
    """Of 1 + ..., each channel by one number: alike in the patch, another in the other channel and patch."""
    for channel_wise in (False, True):
        ones = {"image": torch.ones(4, 2, 3, 3, 3)}
        found = kind("image", 0.5, 1, channel_wise=channel_wise)(ones, generators([0, 1, 2, 3]))["image"].flatten(2)
        assert torch.equal(found.amin(2), found.amax(2))
        values = found[..., 0]
        assert bool((values[:, 0] == values[:, 1]).all()) != channel_wise
        assert len(values[:, 0].unique()) == 4


def test_contrast_and_blur_are_monais() -> None:
    """With limits that leave one value, and axes of different widths."""
    gamma, sigma = 1.7, (0.4, 1.3, 0.0)
    steps = [
        BatchAdjustContrast("image", [gamma, gamma], 1),
        BatchGaussianSmooth("image", [(s, s) for s in sigma], 1),
    ]
    found = BatchCompose(steps)(batch(), generators(list(range(6))))["image"]
    contrast, smooth = AdjustContrast(gamma), GaussianSmooth(sigma)
    expected = torch.stack([torch.as_tensor(smooth(contrast(image))) for image in batch()["image"]])
    # Sums of at most 5 · 13 · 3 products of values up to 1 by weights whose sum is 1.
    assert torch.allclose(found, expected, rtol=0, atol=200 * torch.finfo(torch.float32).eps)


def test_a_patch_of_one_value_keeps_it() -> None:
    same = {"image": torch.full((2, 1, 4, 4, 4), 3.0)}
    found = BatchAdjustContrast("image", [0.5, 0.5], 1)(same, generators([0, 1]))["image"]
    assert torch.equal(found, torch.full_like(found, 3.0))


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="two numbers above 0"):
        BatchAdjustContrast("image", [0.0, 1.0])
    with pytest.raises(ValueError, match="three axes"):
        BatchGaussianSmooth("image", [(0.3, 1.0)])


def test_factors_are_uniform_and_half_of_the_patches_change() -> None:
    ones = {"image": torch.ones(3000, 1, 1, 1, 1)}
    values = BatchScaleIntensity("image", 0.4, 0.5)(ones, generators(list(range(3000))))["image"].flatten() - 1
    changed = values[values != 0].double().numpy()
    assert abs(len(changed) - 1500) < 4 * np.sqrt(750)
    assert kstest(changed, "uniform", args=(-0.4, 0.8)).pvalue > 1e-3


def test_noise_is_normal_with_a_spread_of_its_own_in_each_patch() -> None:
    zeros = {"image": torch.zeros(400, 1, 12, 12, 12)}
    noisy = BatchGaussianNoise("image", 0.5, prob=1)(zeros, generators(list(range(400))))["image"].flatten(1)
    spreads = noisy.std(1).double().numpy()
    assert kstest(spreads, "uniform", args=(0, 0.5)).pvalue > 1e-3
    assert kstest((noisy[0] / noisy[0].std()).double().numpy(), "norm").pvalue > 1e-3


def test_bad_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prob is 1\.5; expected 0 to 1"):
        BatchFlip("image", prob=1.5)
