"""Motion and ghosting on patches: the labels' frequencies at rest, draws by the seed, what is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rarevox.transforms import RandGhostingd, RandMotiond

BOTH = [RandMotiond, RandGhostingd]
U = torch.finfo(torch.float32).eps / 2


def patch(channels: int = 2, shape: tuple[int, ...] = (16, 14, 12)) -> dict[str, Any]:
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((channels, *shape))).float()
    return {"image": image, "label": (image[:1] > 1).to(torch.uint8), "case": "a"}


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_seed_gives_the_same_and_only_the_image_changes(kind: type) -> None:
    before = patch()
    one, again, other = (kind("image", prob=1.0).set_random_state(seed=seed)(before)["image"] for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.dtype == torch.float32 and bool(torch.isfinite(one).all())
    after = kind("image", prob=1.0).set_random_state(seed=3)(before)
    assert after["label"] is before["label"] and after["case"] == "a"
    assert torch.equal(before["image"], patch()["image"])  # a copy is changed, and no other


@pytest.mark.parametrize("kind", BOTH)
def test_at_probability_0_nothing_is_touched(kind: type) -> None:
    before = patch()
    assert kind("image", prob=0.0)(before)["image"] is before["image"]
    drawn = [kind("image", prob=0.3).set_random_state(seed=n)(before)["image"] is before["image"] for n in range(200)]
    # 200 draws at 0.7: mean 140, deviation √(200 · 0.21) = 6.5; six deviations to each side.
    assert 100 <= sum(drawn) <= 180


@pytest.mark.parametrize("movements", [(1, 1), (4, 4)])
def test_a_head_that_does_not_move_leaves_the_image(movements: tuple[int, int]) -> None:
    before = patch()["image"]
    still = RandMotiond("image", prob=1.0, degrees=0, translation=0, movements=movements)
    for seed in range(5):
        found = still.set_random_state(seed=seed)(patch())["image"]
        # Resampling at its own places (16 · 16 u of neighbours that differ by 10), then as in test_k_space.
        assert float((found - before).abs().max()) <= (10 * 16 * 16 + 100 * 5 * 16) * U


@pytest.mark.parametrize("seed", range(8))
def test_the_lines_about_frequency_0_are_of_the_pose_at_rest(seed: int) -> None:
    """So the mean over a plane across the axis of encoding stays, as the labels do, however far the rest moves."""
    before = patch(1)["image"]
    moving = RandMotiond("image", prob=1.0, degrees=30, translation=6, axes=[1]).set_random_state(seed=seed)
    after = moving(patch(1))["image"]
    assert float((after - before).abs().max()) > 0.1
    assert float((after.mean(2) - before.mean(2)).abs().max()) <= 100 * 5 * 16 * U
    assert float((after.mean(1) - before.mean(1)).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", BOTH)
def test_channels_are_recorded_one_by_one_unless_they_are_not(kind: type) -> None:
    one = patch(1)["image"]
    twice = {"image": torch.cat([one, one])}
    own = kind("image", prob=1.0).set_random_state(seed=1)(twice)["image"]
    same = kind("image", prob=1.0, channel_wise=False).set_random_state(seed=1)(twice)["image"]
    assert not torch.equal(own[0], own[1])
    # Vectorised loops may round one channel otherwise than the next.
    assert float((same[0] - same[1]).abs().max()) <= (10 * 16 * 16 + 100 * 5 * 16) * U


@pytest.mark.parametrize("kind", BOTH)
def test_planes_metadata_and_missing_keys(kind: type) -> None:
    flat = patch(2, (12, 10))
    found = kind("image", prob=1.0).set_random_state(seed=0)(flat)["image"]
    assert found.shape == flat["image"].shape and not torch.equal(found, flat["image"])
    kept = MetaTensor(patch()["image"], affine=torch.diag(torch.tensor([2.0, 2, 2, 1])), meta={"case": "a"})
    after = kind("image", prob=1.0).set_random_state(seed=0)({"image": kept})["image"]
    assert isinstance(after, MetaTensor) and after.meta["case"] == "a" and torch.equal(after.affine, kept.affine)
    whole = kind("image", prob=1.0, allow_missing_keys=True)({"label": 1})
    assert whole == {"label": 1}
    numbers = kind("image", prob=1.0).set_random_state(seed=0)({"image": patch()["image"].numpy()})["image"]
    assert isinstance(numbers, np.ndarray)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (RandMotiond, {"degrees": -1}, "expected 0 or more"),
        (RandMotiond, {"movements": [0, 2]}, "1 or more"),
        (RandMotiond, {"movements": [3]}, "least and the largest"),
        (RandMotiond, {"axes": []}, "axes are"),
        (RandGhostingd, {"axes": [3]}, "spatial axes 0, 1 and 2"),
        (RandGhostingd, {"ghosts": [1, 4]}, "2 or more"),
        (RandGhostingd, {"intensity": [0.5, 1.2]}, "within 0 to 1"),
        (RandGhostingd, {"restore": 2.0}, "share of 0 to 1"),
    ],
)
def test_wrong_options_are_refused(kind: type, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind("image", **options)
