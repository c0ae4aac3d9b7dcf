from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, RandAffined

from rarevox.transforms import KeepForegroundd


def patch(seed: int = 0) -> dict[str, torch.Tensor]:
    labels = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    labels[0, 10, 10, 10] = 2
    noise = np.random.default_rng(seed).normal(size=(2, 12, 12, 12))
    return {"image": torch.from_numpy(noise).float(), "label": labels}


def rotations() -> RandAffined:
    return RandAffined(["image", "label"], prob=1.0, rotate_range=[3.0] * 3, mode=["bilinear", "nearest"])


def test_foreground_is_never_lost() -> None:
    plain, ours = rotations(), KeepForegroundd("label", rotations())
    plain.set_random_state(0)
    ours.set_random_state(0)
    assert not all((plain(patch())["label"] != 0).any() for _ in range(20))
    for _ in range(20):
        out = ours(patch())
        assert (out["label"] == 2).any()
        assert out["label"].dtype == torch.uint8


def test_a_refused_draw_leaves_image_and_label_together() -> None:
    transform = KeepForegroundd("label", Lambdad(["image", "label"], lambda x: x * 0))
    data = patch()
    out = transform(data)
    assert torch.equal(out["image"], data["image"])
    assert torch.equal(out["label"], data["label"])


def test_only_the_region_that_the_loss_sees_counts() -> None:
    data = patch()
    shift = Lambdad("label", lambda x: torch.roll(x, -5, 1))
    data["label"][0, 5, 5, 5] = 1
    moved = KeepForegroundd("label", shift, margin=4)(data)  # (5, 5, 5) leaves the middle, (10, …) does not enter it
    assert torch.equal(moved["label"], data["label"])
    assert not torch.equal(KeepForegroundd("label", shift)(data)["label"], data["label"])


def test_a_patch_without_foreground_is_transformed() -> None:
    data = patch()
    data["label"].zero_()
    assert float(KeepForegroundd("label", Lambdad("image", lambda x: x * 0))(data)["image"].abs().sum()) == 0


def test_seeded_by_the_composition_around_it() -> None:
    transform = Compose([KeepForegroundd("label", rotations())])
    results = []
    for seed in (1, 1, 2):
        transform.set_random_state(seed)
        data = patch()
        data["label"][0, 4:8, 4:8, 4:8] = 1  # stays, whatever the rotation
        results.append(transform(data)["image"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_one_label_map_is_asked_for() -> None:
    with pytest.raises(ValueError, match="expected the one label map"):
        KeepForegroundd(["image", "label"], rotations())


def test_component_regions_are_no_foreground() -> None:
    """Regions fill the volume also where no foreground is left; the label channel alone decides."""
    labels = torch.zeros(2, 4, 4, dtype=torch.int32)
    labels[0, 0, 0], labels[1] = 1, 1
    gone = KeepForegroundd("label", Lambdad("label", lambda x: torch.stack((x[0] * 0, x[1]))))
    assert int(gone({"label": labels})["label"][0].sum()) == 1
