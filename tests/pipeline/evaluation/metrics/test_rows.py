"""Rows of figures: hand-derived geometry, the empty rules, invariance and parity with MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from numpy.testing import assert_allclose

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, overlap_columns, read_options
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows

SPACING = (1.0, 2.0, 3.0)


def _cube(start: tuple[int, int, int], size: tuple[int, int, int], value: int = 1) -> np.ndarray:
    labels = np.zeros((16, 14, 12), np.uint8)
    labels[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = value
    return labels


def _random(seed: int, labels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, labels, (5, 4, 3))
    return coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2).astype(dtype)


def test_shifted_cube_by_hand() -> None:
    # A 4×4×4 cube against itself moved by one voxel along x, where a voxel is 1 × 2 × 3 mm = 0.006 ml.
    # 3·4·4 = 48 voxels agree, 16 are false, 16 missed: Dice 96/128, IoU 48/80, precision = recall = 48/64.
    # Only the two x faces moved, by 1 mm. Of the 64 − 8 = 56 border voxels (the inner 2×2×2 are none) of each cube,
    # the 16 of the face that left the other cube are 1 mm away, and so are the 4 inner voxels of the opposite face,
    # which lie in the other's interior, 1 mm from its face in x; the rest lie on the other's border.
    row = case_rows("a", _cube((5, 5, 5), (4, 4, 4)), _cube((4, 5, 5), (4, 4, 4)), SPACING, {"s": 1})[0]
    assert (row["tp"], row["fp"], row["fn"], row["status"]) == (48, 16, 16, "ok")
    assert_allclose([row["dice"], row["iou"], row["precision"], row["recall"]], [0.75, 0.6, 0.75, 0.75])
    assert_allclose([row["volume_ml"], row["reference_ml"], row["volume_error_ml"]], [0.384, 0.384, 0], atol=1e-12)
    assert_allclose(row["false_positive_ml"], 0.096)
    assert row["hd_mm"] == 1.0
    assert row["hd95_mm"] == 1.0
    assert_allclose(row["assd_mm"], 20 / 56)


@pytest.mark.parametrize(("axis", "moved"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_distance_follows_the_spacing_of_the_axis(axis: int, moved: float) -> None:
    start = [4, 4, 4]
    start[axis] += 1
    row = case_rows("a", _cube(tuple(start), (3, 3, 3)), _cube((4, 4, 4), (3, 3, 3)), SPACING, {"s": 1})[0]
    assert row["hd_mm"] == moved


def test_surface_dice_by_hand() -> None:
    # Slabs of one voxel in x, 2 voxels (2 mm) apart: no surface point is nearer than 2 mm to the other slab.
    options = MetricOptions(tolerances_mm=(1.0, 2.0))
    row = case_rows("a", _cube((6, 3, 3), (1, 4, 4)), _cube((4, 3, 3), (1, 4, 4)), SPACING, {"s": 1}, options=options)[
        0
    ]
    assert (row["surface_dice_1mm"], row["surface_dice_2mm"]) == (0.0, 1.0)
    assert row["assd_mm"] == row["hd95_mm"] == 2.0


def test_volume_error_is_signed() -> None:
    row = case_rows("a", _cube((4, 4, 4), (2, 2, 2)), _cube((4, 4, 4), (4, 4, 4)), SPACING, {"s": 1})[0]
    assert_allclose(row["volume_error_ml"], (8 - 64) * 0.006)
    assert (row["precision"], row["recall"]) == (1.0, 0.125)


@pytest.mark.parametrize(
    ("rule", "both", "no_reference", "no_prediction"),
    [("one", 1.0, 0.0, 0.0), ("nan", math.nan, math.nan, 0.0), ("zero", 0.0, 0.0, 0.0)],
)
def test_empty_rules(rule: str, both: float, no_reference: float, no_prediction: float) -> None:
    options, full, empty = MetricOptions(empty=rule), _cube((4, 4, 4), (2, 2, 2)), np.zeros((16, 14, 12), np.uint8)
    for prediction, reference, status, expected in (
        (empty, empty, "empty_both", both),
        (full, empty, "empty_reference", no_reference),
        (empty, full, "empty_prediction", no_prediction),
    ):
        row = case_rows("a", prediction, reference, SPACING, {"s": 1}, options=options)[0]
        assert row["status"] == status
        assert row["reason"]
        for column in overlap_columns(options):
            assert_allclose(row[column], expected, err_msg=column)
        assert math.isnan(row["hd95_mm"])
        assert_allclose(row["false_positive_ml"], 0.048 if prediction is full else 0.0)
        assert row["lesions_predicted"] == (prediction is full)
        assert row["lesions_reference"] == (reference is full)


def test_distance_penalty_replaces_undefined_distances() -> None:
    options, full = MetricOptions(distance_penalty_mm=374.0), _cube((4, 4, 4), (2, 2, 2))
    row = case_rows("a", np.zeros_like(full), full, SPACING, {"s": 1}, options=options)[0]
    assert row["hd95_mm"] == row["hd_mm"] == row["assd_mm"] == 374.0
    row = case_rows("a", np.zeros_like(full), np.zeros_like(full), SPACING, {"s": 1}, options=options)[0]
    assert row["hd95_mm"] == 0.0


def test_failed_case_counts_as_zero_and_its_reference_as_missed() -> None:
    reference = _cube((4, 4, 4), (2, 2, 2))
    row = failed_rows("a", {"s": 1}, "corrupt", reference=reference, spacing_mm=SPACING)[0]
    assert (row["status"], row["reason"], row["dice"], row["surface_dice_1mm"]) == ("failed", "corrupt", 0.0, 0.0)
    assert (row["tp"], row["fp"], row["fn"], row["lesions_reference"]) == (0, 0, 8, 1)
    assert math.isnan(row["hd95_mm"])
    assert list(row) == list(case_rows("a", reference, reference, SPACING, {"s": 1})[0])


def test_a_failed_case_has_the_penalty_of_an_empty_prediction() -> None:
    """Without it a failure would be left out of the mean distance, and be better than a prediction of nothing."""
    reference = _cube((4, 4, 4), (2, 2, 2))
    options = MetricOptions(distance_penalty_mm=300.0, lesion_penalty_mm=374.0)
    empty = case_rows("a", np.zeros_like(reference), reference, SPACING, {"s": 1}, options=options)[0]
    for known in ({}, {"reference": reference, "spacing_mm": SPACING}):
        failed = failed_rows("a", {"s": 1}, "corrupt", options=options, **known)[0]
        for column, penalty in (("hd95_mm", 300.0), ("hd_mm", 300.0), ("assd_mm", 300.0), ("lesion_hd95_mm", 374.0)):
            assert failed[column] == empty[column] == penalty


def test_failed_case_without_a_reference_has_no_counts() -> None:
    row = failed_rows("a", {"s": 1}, "missing", options=MetricOptions(empty="nan"))[0]
    assert row["dice"] == 0.0
    assert math.isnan(row["fn"])


def test_union_of_labels() -> None:
    a, b = _random(0), _random(1)
    union = case_rows("a", a, b, SPACING, {"whole": (1, 2)})[0]
    binary = case_rows("a", (a > 0), (b > 0), SPACING, {"whole": 1})[0]
    assert union == binary


def test_background_has_no_row_unless_asked() -> None:
    structures = {"background": 0, "s": 1}
    assert [r["structure"] for r in case_rows("a", _random(0), _random(1), SPACING, structures)] == ["s"]
    rows = case_rows("a", _random(0), _random(1), SPACING, structures, options=MetricOptions(include_background=True))
    assert [row["structure"] for row in rows] == ["background", "s"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flip", [(), (0,), (1, 2)])
def test_mirrors_and_axis_order_change_nothing(order: tuple[int, ...], flip: tuple[int, ...]) -> None:
    a, b = _random(0), _random(1)
    options = MetricOptions(surface="area")
    expected = case_rows("a", a, b, SPACING, {"s": 1, "t": 2}, options=options)
    turned = [np.flip(x.transpose(order), flip) for x in (a, b)]
    rows = case_rows("a", *turned, [SPACING[axis] for axis in order], {"s": 1, "t": 2}, options=options)
    for row, same in zip(rows, expected, strict=True):
        assert_allclose(list(row.values())[4:], list(same.values())[4:], rtol=1e-9)


def test_swapping_the_maps_swaps_precision_and_recall() -> None:
    one = case_rows("a", _random(0), _random(1), SPACING, {"s": 1})[0]
    other = case_rows("a", _random(1), _random(0), SPACING, {"s": 1})[0]
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])
    for column in ("dice", "iou", "hd95_mm", "hd_mm", "assd_mm", "surface_dice_1mm", "lesion_f1"):
        assert_allclose(one[column], other[column], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint16])
def test_dtype_layout_and_relabelling_change_nothing(dtype: type) -> None:
    expected = case_rows("a", _random(0), _random(1), SPACING, {"s": 1, "t": 2})
    a, b = _random(0, dtype=dtype), np.asfortranarray(_random(1, dtype=dtype))
    assert case_rows("a", a, b, SPACING, {"s": 1, "t": 2}) == expected
    fortran = case_rows("a", np.asfortranarray(a), b, SPACING, {"s": 1, "t": 2})
    for row, same in zip(fortran, expected, strict=True):
        assert_allclose(list(row.values())[4:], list(same.values())[4:], rtol=1e-12)
    if dtype != np.uint8:
        assert case_rows("a", a * 150, b * 150, SPACING, {"s": 150, "t": 300}) == expected


def test_room_around_the_structures_changes_nothing() -> None:
    expected = case_rows("a", _random(0), _random(1), SPACING, {"s": 1})
    assert case_rows("a", np.pad(_random(0), 4), np.pad(_random(1), 4), SPACING, {"s": 1}) == expected


@pytest.mark.parametrize("seed", range(3))
def test_dice_and_iou_agree_with_monai(seed: int) -> None:
    a, b = _random(seed), _random(seed + 10)
    rows = case_rows("a", a, b, SPACING, {"s": 1, "t": 2})
    onehot = [torch.from_numpy(np.stack([x == c for c in range(3)])[None].astype(np.float32)) for x in (a, b)]
    assert_allclose([r["dice"] for r in rows], compute_dice(*onehot, include_background=False)[0], rtol=1e-6)
    assert_allclose([r["iou"] for r in rows], compute_iou(*onehot, include_background=False)[0], rtol=1e-6)


def test_empty_rule_nan_is_monai_ignore_empty() -> None:
    full, empty = _cube((4, 4, 4), (2, 2, 2)), np.zeros((16, 14, 12), np.uint8)
    for a, b in ((full, empty), (empty, full), (empty, empty)):
        ours = case_rows("a", a, b, SPACING, {"s": 1}, options=MetricOptions(empty="nan"))[0]["dice"]
        tensors = [torch.from_numpy(x[None, None].astype(np.float32)) for x in (a, b)]
        assert_allclose(ours, float(compute_dice(*tensors, ignore_empty=True)))


@pytest.mark.parametrize(
    ("prediction", "spacing", "message"),
    [
        (np.zeros((2, 2, 3), int), (1, 1, 1), "same grid"),
        (np.zeros((2, 2), int), (1, 1, 1), "three axes"),
        (np.zeros((2, 2, 2)), (1, 1, 1), "whole-number"),
        (np.zeros((2, 2, 2), int), (1, 0, 1), "positive"),
        (np.zeros((2, 2, 2), int), (1, 1), "positive"),
        (np.zeros((2, 2, 2), int), (1, math.nan, 1), "positive"),
    ],
)
def test_bad_input_is_named(prediction: np.ndarray, spacing: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        case_rows("a", prediction, np.zeros((2, 2, 2), int), spacing, {"s": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"empty": "two"},
        {"surface": "mesh"},
        {"connectivity": 8},
        {"tolerances_mm": (-1.0,)},
        {"tolerances_mm": (math.nan,)},
        {"resamples": 1},
        {"lesion_dilation": -1},
        {"lesion_min_ml": -0.1},
        {"lesion_sizes_ml": (1.0, 0.1)},
        {"lesion_sizes_ml": (0.1,)},
        {"lesions": "maybe"},
        {"distances": 2},
        {"seed": "abc"},
        {"seed": -1},
        {"resamples": 10.5},
        {"lesion_dilation": 1.5},
        {"distance_penalty_mm": "far"},
        {"distance_penalty_mm": -3.0},
        {"lesion_penalty_mm": math.nan},
        {"tolerances_mm": 2.0},
        {"composites_in_mean": "yes please"},
    ],
)
def test_bad_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        MetricOptions(**wrong)


def test_options_from_texts() -> None:
    found = read_options({"lesion_dilation": "3", "surface": "area", "lesion_sizes_ml": "[0.05, 2]"}, empty="nan")
    assert found == MetricOptions(empty="nan", lesion_dilation=3, surface="area", lesion_sizes_ml=(0.05, 2))
    for name, text, message in (
        ("lesion_dilatation", "3", "there is no such convention; known are empty, tolerances_mm"),
        ("surface", "mesh", "expected one of voxels, area"),
        ("lesion_dilation", "many", "lesion_dilation=many"),
        ("resamples", "1", "expected at least 2"),
        ("seed", "[1", "--set seed=.1: it is not valid YAML: line 1, column 3: expected"),
    ):
        with pytest.raises(RequestError, match=message):
            read_options({name: text})


def test_conventions_state_the_rule_and_the_tolerance() -> None:
    stated = MetricOptions(empty="zero", tolerances_mm=(2.0,)).conventions()
    assert stated["empty"] == "zero"
    assert stated["tolerances_mm"] == [2.0]
    assert "also where both are" in stated["empty_rule"]


@pytest.mark.parametrize("background", [False, True])
def test_an_ignored_part_might_as_well_not_be_there(background: bool) -> None:
    """The lower half alone gives the same rows, whatever the prediction says in the upper one."""
    options = MetricOptions(ignored_value=9, include_background=background, tolerances_mm=(1.0, 2.0))
    structures = {"background": 0, "one": 1, "two": 2, "both": (1, 2)}
    reference, prediction = _random(0), _random(1)
    half = reference.shape[2] // 2
    cut = (slice(None), slice(None), slice(half))
    expected = case_rows("a", prediction[cut], reference[cut], (1, 2, 3), structures, options=options)
    reference[:, :, half:] = 9
    mirrored = np.asfortranarray(prediction), np.asfortranarray(reference)
    for maps in ((prediction, reference), mirrored):
        for row, wanted in zip(case_rows("a", *maps, (1, 2, 3), structures, options=options), expected, strict=True):
            assert row == pytest.approx(wanted, nan_ok=True)


def test_an_ignored_value_that_is_a_structure_is_refused() -> None:
    maps = np.zeros((2, 2, 2), np.uint8)
    for wrong in (0, 1, 2):
        with pytest.raises(RequestError, match=f"ignored_value is {wrong}, which is"):
            case_rows("a", maps, maps, (1, 1, 1), {"s": 1, "u": (1, 2)}, options=MetricOptions(ignored_value=wrong))
