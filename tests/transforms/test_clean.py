"""Post-processing by hand: components, volumes at the limit, holes, what must stay as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.testing import assert_array_equal

from rarevox.transforms.clean import CleanLabelsd, clean_labels, read_rules

STRUCTURES = {"a": 1, "b": 2}


def _two_parts() -> np.ndarray:
    """A part of 8 voxels and one of 3, of label 1; a box of label 2 beside the small one."""
    labels = np.zeros((10, 8, 6), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    labels[6:9, 5, 4] = 1
    labels[6:9, 6, 4] = 2
    return labels


def test_the_largest_component_stays() -> None:
    cleaned = clean_labels(_two_parts(), {1: {"largest": True}}, 1.0)
    assert (cleaned == 1).sum() == 8
    assert (cleaned == 2).sum() == 3
    assert cleaned.dtype == np.uint8


@pytest.mark.parametrize(("min_ml", "left"), [(0.0, 11), (0.06, 11), (0.0601, 8), (0.16, 8), (0.17, 0)])
def test_components_under_the_volume_go_and_those_at_it_stay(min_ml: float, left: int) -> None:
    # Voxels of 0.02 ml: the parts have 0.06 and 0.16 ml.
    assert (clean_labels(_two_parts(), {1: {"min_ml": min_ml}}, 0.02) == 1).sum() == left


def test_voxels_that_touch_by_a_corner_are_one_component() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = labels[2, 2, 2] = 1
    assert_array_equal(clean_labels(labels, {1: {"largest": True}}, 1.0), labels)


def test_holes_are_filled_and_open_ones_and_other_structures_are_not() -> None:
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[:, :, :] = 1  # up to the border of the array
    labels[2, 2, 2] = 0  # closed on all sides
    labels[2, 2, 3] = 2  # another structure beside it, enclosed as well
    filled = clean_labels(labels, {1: {"fill_holes": True}}, 1.0)
    assert filled[2, 2, 2] == 1
    assert filled[2, 2, 3] == 2
    labels[2, 2, :2] = 0  # a channel to the face: no hole
    assert_array_equal(clean_labels(labels, {1: {"fill_holes": True}}, 1.0), labels)


def test_a_false_island_inside_becomes_what_is_around_it() -> None:
    labels = np.ones((7, 7, 7), np.uint8)
    labels[3, 3, 3] = 2
    rules = {2: {"min_ml": 0.002}, 1: {"fill_holes": True}}
    assert_array_equal(clean_labels(labels, rules, 0.001), np.ones_like(labels))


def test_cleaning_twice_changes_nothing_more_and_mirroring_commutes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, (14, 12, 10), p=(0.7, 0.2, 0.1)).astype(np.int16)
    rules: dict[int, dict[str, Any]] = {1: {"min_ml": 0.003, "fill_holes": True}, 2: {"min_ml": 0.002}}
    before = labels.copy()
    once = clean_labels(labels, rules, 0.001)
    assert_array_equal(labels, before)
    assert (once != labels).any()
    assert_array_equal(clean_labels(once, rules, 0.001), once)
    assert_array_equal(clean_labels(labels[::-1, :, ::-1], rules, 0.001), once[::-1, :, ::-1])


def test_empty_maps_and_no_rules() -> None:
    blank = np.zeros((3, 3, 3), np.uint8)
    rules = {1: {"largest": True, "min_ml": 1.0, "fill_holes": True}}
    assert_array_equal(clean_labels(blank, rules, 1.0), blank)
    assert_array_equal(clean_labels(_two_parts(), {}, 1.0), _two_parts())
    assert read_rules(None, STRUCTURES) == read_rules({"a": None, "b": {"largest": False}}, STRUCTURES) == {}


def test_the_transform_takes_the_voxel_of_the_file() -> None:
    affine = np.diag([2.0, -1.0, 3.0, 1.0])  # 6 mm³, 0.006 ml: the parts have 0.018 and 0.048 ml
    image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"original_affine": affine})
    data = {"image": image, "pred": torch.from_numpy(_two_parts())[None]}
    out = CleanLabelsd("pred", {"a": {"min_ml": 0.02}}, STRUCTURES)(data)
    assert int((out["pred"] == 1).sum()) == 8
    assert out["pred"].shape == data["pred"].shape
    assert_array_equal(out["raw"][0], _two_parts())
    assert "raw" not in CleanLabelsd("pred", {}, STRUCTURES)(data)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"c": {"largest": True}}, "no structure is called 'c'"),
        ({"a": {"larges": True}}, "no rule 'larges': did you mean 'largest'"),
        ({"a": {"largest": 1}}, "expected true or false"),
        ({"a": {"min_ml": -1}}, "expected a volume in ml"),
        ({"a": True}, "expected rules"),
        (["a"], "expected for example"),
    ],
)
def test_wrong_rules_are_refused(declared: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_rules(declared, STRUCTURES)


def test_rules_of_nested_regions_leave_them_nested() -> None:
    """A core in two parts and a hole: the small part falls to the ring around it, the hole becomes core."""
    labels = np.zeros((9, 7, 7), np.uint8)
    labels[1:8, 1:6, 1:6] = 7
    labels[2:5, 2:5, 2:5] = 250
    labels[3, 3, 3] = 7  # a hole of the core
    labels[6, 3, 3] = 250  # 1 voxel of core by itself
    structures, regions = {"a": 7, "b": 250}, ["whole", "core"]
    clean = CleanLabelsd("pred", {"core": {"min_ml": 2.0, "fill_holes": True}}, structures, regions=regions)
    image = MetaTensor(torch.zeros(1, 9, 7, 7), meta={"original_affine": np.diag([10.0, 10.0, 10.0, 1.0])})
    found = clean({"image": image, "pred": torch.from_numpy(labels)[None]})["pred"][0].numpy()
    wanted = labels.copy()
    wanted[3, 3, 3], wanted[6, 3, 3] = 250, 7
    assert np.array_equal(found, wanted)
    with pytest.raises(ValueError, match="no structure is called 'b'"):
        CleanLabelsd("pred", {"b": {"largest": True}}, structures, regions=regions)
