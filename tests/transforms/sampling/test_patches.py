from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rarevox.transforms import (
    ClassBalancedSampler,
    ForegroundUniformSampler,
    IndexForegroundd,
    LesionBalancedSampler,
    RandForegroundPatchd,
    UniformSampler,
)
from rarevox.transforms.labels import IGNORED, classes_from_values
from rarevox.transforms.sampling.patches import crop_into, crop_padded

SAMPLERS = [ClassBalancedSampler(), LesionBalancedSampler(), ForegroundUniformSampler()]


def labels_of(shape: tuple[int, ...], voxels: dict[tuple[int, ...], int]) -> torch.Tensor:
    labels = torch.zeros(1, *shape, dtype=torch.uint8)
    for place, value in voxels.items():
        labels[(0, *place)] = value
    return labels


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_every_patch_holds_foreground_in_the_effective_region(sampler) -> None:
    labels = labels_of((12, 9, 11), {(0, 0, 0): 1, (11, 8, 10): 2, (5, 4, 5): 2})
    place = {"patch_size": (7, 7, 7), "margin": (2, 1, 0), "sampler": sampler}
    data = IndexForegroundd("label", **place)({"image": labels.float(), "label": labels})
    draw = RandForegroundPatchd(["image", "label"], **place).set_random_state(seed=3)
    for _ in range(200):
        patch = draw(data)["label"]
        assert patch.shape == (1, 7, 7, 7)
        assert bool((patch[:, 2:5, 1:6] > 0).any())


def test_a_patch_says_where_it_lies() -> None:
    volume = torch.arange(9 * 8 * 7).reshape(1, 9, 8, 7)
    data = IndexForegroundd("label")({"image": volume, "label": labels_of((9, 8, 7), {(4, 4, 4): 1})})
    draw = RandForegroundPatchd(["image", "label"], (3, 4, 3)).set_random_state(seed=0)
    for _ in range(20):
        patch = draw(data)
        assert patch["volume_size"].tolist() == [9, 8, 7]
        block = tuple(slice(s, s + p) for s, p in zip(patch["patch_start"].tolist(), (3, 4, 3), strict=True))
        assert torch.equal(patch["image"], volume[(slice(None), *block)])
        assert "foreground" not in patch


def test_a_volume_smaller_than_the_patch_is_padded_with_zeros_and_kept_whole() -> None:
    labels = labels_of((3, 3, 3), {(1, 1, 1): 1})
    image = torch.arange(1.0, 28.0).reshape(1, 3, 3, 3)
    data = IndexForegroundd("label")({"image": image, "label": labels})
    patch = RandForegroundPatchd(["image", "label"], (8, 8, 8)).set_random_state(seed=0)(data)
    assert patch["image"].shape == (1, 8, 8, 8)
    assert torch.equal(patch["image"][patch["image"] > 0].sort().values, image.flatten())
    assert int(patch["label"].sum()) == 1


def test_image_and_label_are_cut_at_the_same_place() -> None:
    volume = torch.randint(0, 3, (1, 9, 8, 7))
    data = IndexForegroundd("label")({"image": volume.float(), "label": volume})
    draw = RandForegroundPatchd(["image", "label"], (5, 10, 3)).set_random_state(seed=5)
    for _ in range(20):
        patch = draw(data)
        assert torch.equal(patch["image"].long(), patch["label"])


def test_crop_padded_equals_cropping_a_padded_volume() -> None:
    volume = torch.randn(2, 5, 6, 4)
    padded = torch.nn.functional.pad(volume, (9,) * 6)
    for start in itertools.product((-7, -1, 0, 2, 4), repeat=3):
        expected = padded[:, start[0] + 9 :, start[1] + 9 :, start[2] + 9 :][:, :3, :4, :5]
        assert torch.equal(crop_padded(volume, start, (3, 4, 5)), expected)
        assert torch.equal(crop_into(torch.full((2, 3, 4, 5), 7.0), volume, start), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_blocks_are_copied_whole_with_any_number_of_threads(threads: int) -> None:
    volume, before = torch.randn(2, 60, 50, 45), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = crop_into(torch.empty(2, 41, 40, 30), volume, (3, 4, -5))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, crop_padded(volume, (3, 4, -5), (41, 40, 30)))


def test_blocks_wholly_outside_are_zero() -> None:
    volume = torch.ones(1, 4, 4)
    for start in ((9, 0), (-5, 0), (0, 4), (0, -3)):
        assert not crop_into(torch.ones(1, 3, 3), volume, start).any()


def test_an_index_of_another_sampler_or_patch_is_refused() -> None:
    case = {"label": labels_of((5, 5, 5), {(1, 1, 1): 1})}
    by_class = IndexForegroundd("label")(case)
    with pytest.raises(ValueError, match="LesionBalancedSampler needs an index by component"):
        RandForegroundPatchd("label", (2, 2, 2), sampler=LesionBalancedSampler())(by_class)
    of_twos = IndexForegroundd("label", sampler=ForegroundUniformSampler(), patch_size=(2, 2, 2))(case)
    with pytest.raises(ValueError, match=r"this case was indexed by patches \(2, 2, 2\)"):
        RandForegroundPatchd("label", (3, 3, 3), sampler=ForegroundUniformSampler())(of_twos)
    assert RandForegroundPatchd("label", (3, 3, 3), sampler=UniformSampler())(of_twos)["label"].shape == (1, 3, 3, 3)
    with pytest.raises(ValueError, match="give patch_size and margin"):
        IndexForegroundd("label", sampler=ForegroundUniformSampler())


def test_the_default_draws_the_same_patches_as_ever() -> None:
    """Class, voxel, then each axis in turn from one generator: what earlier runs drew, they draw again on resuming."""
    labels = labels_of((9, 9, 9), {(0, 4, 8): 1, (2, 2, 2): 2, (7, 7, 7): 2})
    data = IndexForegroundd("label")({"label": labels})
    draw = RandForegroundPatchd("label", (4, 4, 4)).set_random_state(seed=11)
    random = np.random.RandomState(11)
    groups = [[(0, 4, 8)], [(2, 2, 2), (7, 7, 7)]]
    for _ in range(30):
        group = groups[random.randint(2)]
        voxel = group[random.randint(len(group))]
        ranges = [(max(v - 3, 0), min(v, 5)) for v in voxel]
        expected = [random.randint(low, high + 1) for low, high in ranges]
        assert draw(data)["patch_start"].tolist() == expected


@pytest.mark.parametrize("sampler", [ClassBalancedSampler(), LesionBalancedSampler(), ForegroundUniformSampler()])
def test_what_nobody_annotated_is_no_foreground(sampler) -> None:
    """Around it no patch is drawn; a case without foreground gives patches that hold something annotated."""
    labels = torch.full((1, 20, 20), IGNORED, dtype=torch.uint8)
    labels[0, 3:6, 4:8] = 0
    labels[0, 4, 5] = 1
    for foreground in (True, False):
        if not foreground:
            labels[labels == 1] = 0
        index = IndexForegroundd("label", sampler=sampler, patch_size=(4, 4))
        draw = RandForegroundPatchd(["label"], (4, 4), sampler=sampler).set_random_state(0)
        indexed = index({"label": labels})
        for _ in range(50):
            patch = draw(indexed)["label"]
            assert bool((patch == 1).any()) if foreground else bool((patch != IGNORED).any())


def test_the_256th_class_of_many_is_foreground_as_any_other() -> None:
    """Beside more than 254 structures there is no ignored label; 255 is then a class."""
    values = torch.zeros(1, 9, 9)
    values[0, 4, 4] = 255
    classes = classes_from_values(values, list(range(300)))
    index = IndexForegroundd()({"label": classes})["foreground"]
    assert index.classes == (255,)
