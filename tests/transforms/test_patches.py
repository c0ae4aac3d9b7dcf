from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from transforms import ForegroundIndex, IndexForegroundd, RandForegroundPatchd
from transforms.patches import crop_padded, draw_start, start_range


def labels_of(shape: tuple[int, ...], voxels: dict[tuple[int, ...], int]) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    for place, value in voxels.items():
        labels[place] = value
    return labels


@pytest.mark.parametrize(
    ("size", "patch", "margin"), [(7, 3, 0), (7, 5, 1), (4, 7, 0), (5, 9, 2), (1, 1, 0), (6, 6, 0)]
)
def test_start_range_is_every_start_that_the_rule_allows(size: int, patch: int, margin: int) -> None:
    effective = patch - 2 * margin
    for voxel in range(size):
        allowed = []
        for start in range(-2 * patch, size + patch):
            begin = start + margin
            holds = begin <= voxel < begin + effective
            fits = 0 <= begin <= size - effective if effective <= size else size - effective <= begin <= 0
            if holds and fits:
                allowed.append(start)
        low, high = start_range(voxel, size, patch, margin)
        assert list(range(low, high + 1)) == allowed


def test_every_patch_holds_foreground_in_the_effective_region() -> None:
    labels = labels_of((12, 9, 11), {(0, 0, 0): 1, (11, 8, 10): 2, (5, 4, 5): 2})
    data = IndexForegroundd("label")({"image": torch.zeros(1, *labels.shape), "label": torch.from_numpy(labels)[None]})
    draw = RandForegroundPatchd(["image", "label"], (7, 7, 7), margin=(2, 1, 0))
    draw.set_random_state(seed=3)
    for _ in range(300):
        patch = draw(data)["label"]
        assert patch.shape == (1, 7, 7, 7)
        assert bool((patch[:, 2:5, 1:6] > 0).any())


def test_classes_are_drawn_equally_often_whatever_their_size() -> None:
    labels = np.ones((10, 10, 10), np.uint8)
    labels[9, 9, 9] = 2
    index = ForegroundIndex.of(labels)
    random = np.random.RandomState(0)
    drawn = Counter(draw_start(index, (1, 1, 1), (0, 0, 0), random) == (9, 9, 9) for _ in range(2000))
    assert chisquare([drawn[True], drawn[False]], [1000, 1000]).pvalue > 1e-3


def test_positions_around_a_voxel_are_uniform_also_at_the_border() -> None:
    """A voxel in the corner of a 5×5×5 volume: patches of 2³ that hold it and lie inside start at 0 on each axis; one
    step inside, at 0 or 1 on each axis, so 8 starts of equal probability."""
    corner = ForegroundIndex.of(labels_of((5, 5, 5), {(0, 0, 0): 1}))
    inner = ForegroundIndex.of(labels_of((5, 5, 5), {(1, 1, 1): 1}))
    random = np.random.RandomState(1)
    assert {draw_start(corner, (2, 2, 2), (0, 0, 0), random) for _ in range(50)} == {(0, 0, 0)}
    counts = Counter(draw_start(inner, (2, 2, 2), (0, 0, 0), random) for _ in range(4000))
    assert set(counts) == set(itertools.product((0, 1), repeat=3))
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_case_without_foreground_gives_uniform_patches() -> None:
    index = ForegroundIndex.of(np.zeros((4, 1, 1), np.uint8))
    random = np.random.RandomState(2)
    counts = Counter(draw_start(index, (2, 1, 1), (0, 0, 0), random)[0] for _ in range(3000))
    assert set(counts) == {0, 1, 2}
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_volume_smaller_than_the_patch_is_padded_with_zeros_and_kept_whole() -> None:
    labels = labels_of((3, 3, 3), {(1, 1, 1): 1})
    image = torch.arange(1.0, 28.0).reshape(1, 3, 3, 3)
    data = IndexForegroundd("label")({"image": image, "label": torch.from_numpy(labels)[None]})
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


def test_an_impossible_margin_is_refused_with_the_figures() -> None:
    with pytest.raises(ValueError, match=r"patch_size \(4, 4, 4\) less margin \(2, 2, 2\)"):
        RandForegroundPatchd("image", (4, 4, 4), margin=2)
    with pytest.raises(ValueError, match="differ in length"):
        RandForegroundPatchd("image", (4, 4, 4), margin=(1, 1))


def test_index_lists_every_voxel_of_every_class_once() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 5, 4))
    index = ForegroundIndex.of(labels)
    assert index.classes == (1, 2, 3)
    for value, voxels in zip(index.classes, index.voxels, strict=True):
        assert np.array_equal(np.sort(voxels), np.flatnonzero(labels.ravel() == value))
