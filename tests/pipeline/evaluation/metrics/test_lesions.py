"""Lesion-wise figures, counted by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.lesions import lesion_scores
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows

ONE = (1.0, 1.0, 1.0)


def _masks(*boxes: tuple[int, int]) -> np.ndarray:
    """Boxes of 3×3 voxels in y and z from x start to stop."""
    mask = np.zeros((40, 5, 5), bool)
    for start, stop in boxes:
        mask[start:stop, 1:4, 1:4] = True
    return mask


def test_counts_by_hand() -> None:
    # Reference lesions at 0-4, 10-14, 20-22; predicted at 2-4 (half of the first), 9-15 (around the second), 30-33.
    # Dice: 2·18/(36 + 18) = 2/3; 2·36/(36 + 54) = 0.8; the third is missed: 0. One false lesion: 0. Sum / 4.
    found = lesion_scores(_masks((2, 4), (9, 15), (30, 33)), _masks((0, 4), (10, 14), (20, 22)), ONE, penalty_mm=100.0)
    counts = [found[f"lesions_{name}"] for name in ("reference", "predicted", "detected", "true")]
    assert counts == [3, 3, 2, 2]
    assert_allclose([found["lesion_recall"], found["lesion_precision"], found["lesion_f1"]], [2 / 3] * 3)
    assert_allclose(found["lesion_dice"], (2 / 3 + 0.8) / 4)
    # HD95 of the pair (2-4, 0-4): of 36 reference border voxels less 2 inner ones, 34 count, the 9 at x = 0 are 2 mm
    # away: the 95th percentile is 2. Of the pair (9-15, 10-14) the end faces are 1 mm apart. Two penalties.
    assert_allclose(found["lesion_hd95_mm"], (2 + 1 + 100 + 100) / 4)


def test_one_prediction_over_two_lesions_detects_both() -> None:
    found = lesion_scores(_masks((0, 12)), _masks((0, 4), (8, 12)), ONE)
    assert (found["lesions_detected"], found["lesions_true"], found["lesion_f1"]) == (2, 1, 1.0)
    assert_allclose(found["lesion_dice"], 2 * 36 / (36 + 108))


def test_fragments_of_one_lesion_are_all_true() -> None:
    found = lesion_scores(_masks((0, 2), (3, 5)), _masks((0, 5)), ONE)
    assert (found["lesions_true"], found["lesion_precision"]) == (2, 1.0)
    assert_allclose(found["lesion_dice"], 2 * 36 / (45 + 36))


@pytest.mark.parametrize(("connectivity", "lesions"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity(connectivity: int, lesions: int) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = True  # joined over an edge, then over a corner
    assert lesion_scores(mask, mask, ONE, connectivity=connectivity)["lesions_reference"] == lesions


def test_dilation_joins_neighbours_and_reaches_near_misses() -> None:
    reference = _masks((0, 4), (6, 10))  # a gap of two voxels
    assert lesion_scores(reference, reference, ONE)["lesions_reference"] == 2
    joined = lesion_scores(reference, reference, ONE, dilation=1)
    assert (joined["lesions_reference"], joined["lesion_dice"]) == (1, 1.0)
    near_miss = lesion_scores(_masks((12, 14)), _masks((6, 11)), ONE, dilation=2)
    assert (near_miss["lesions_detected"], near_miss["lesions_true"], near_miss["lesion_dice"]) == (1, 1, 0.0)


def test_small_reference_lesions_and_what_lies_only_on_them_are_left_out() -> None:
    # 36 voxels are 0.036 ml, 9 are 0.009 ml.
    prediction, reference = _masks((0, 4), (10, 11), (20, 22)), _masks((0, 4), (10, 11))
    found = lesion_scores(prediction, reference, ONE, min_ml=0.02)
    counts = [found[f"lesions_{name}"] for name in ("reference", "predicted", "detected", "true")]
    assert counts == [1, 2, 1, 1]
    assert_allclose(found["lesion_dice"], 0.5)


def test_a_lesion_of_just_the_smallest_volume_is_left_out() -> None:
    found = lesion_scores(_masks((0, 4), (10, 11)), _masks((0, 4), (10, 11)), ONE, min_ml=0.009)  # the second: 9 mm³
    assert (found["lesions_reference"], found["lesions_predicted"]) == (1, 1)


def test_classes_of_size_by_hand() -> None:
    # At 1 mm³ a voxel, lesions of x = 2, 4 and 8 slices of 9 voxels hold 0.018, 0.036 and 0.072 ml. Bounds at 0.02 and
    # 0.072 ml: the largest belongs to "large". Found: the first in half (Dice 2·9/(18 + 9) = 2/3), the last whole.
    # The false lesion of 3 slices has 0.027 ml.
    reference, prediction = _masks((0, 2), (10, 14), (20, 28)), _masks((0, 1), (16, 19), (20, 28))
    found = lesion_scores(prediction, reference, ONE, sizes_ml=(0.02, 0.072))
    for kind, counts in (
        ("lesions_reference", (1, 1, 1)),
        ("lesions_detected", (1, 0, 1)),
        ("lesions_predicted", (1, 1, 1)),
        ("lesions_true", (1, 0, 1)),
        ("lesion_dice", (2 / 3, 0.0, 1.0)),
    ):
        assert_allclose([found[f"{kind}_{size}"] for size in ("small", "medium", "large")], counts, err_msg=kind)


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_size_add_up_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(24, 24, 24)), 1.0) > 0.35 for _ in range(2))
    found = lesion_scores(a, b, (1, 2, 3), sizes_ml=(0.03, 0.1), min_ml=0.01)
    for kind in ("reference", "predicted", "detected", "true"):
        parts = [found[f"lesions_{kind}_{size}"] for size in ("small", "medium", "large")]
        assert sum(parts) == found[f"lesions_{kind}"]
    dice = [
        found[f"lesion_dice_{size}"] * found[f"lesions_reference_{size}"]
        for size in ("small", "medium", "large")
        if found[f"lesions_reference_{size}"]
    ]
    false = found["lesions_predicted"] - found["lesions_true"]
    assert_allclose(sum(dice) / (found["lesions_reference"] + false), found["lesion_dice"])


def _brats_2023(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Lesion-wise Dice and HD95 as the challenge describes them, written down step by step over the whole volume."""
    peer = pytest.importorskip("surface_distance", reason="pip install surface-distance to compare with it")
    near, grow = ndimage.generate_binary_structure(3, 3), ndimage.generate_binary_structure(3, 2)
    grown, _ = ndimage.label(ndimage.binary_dilation(reference, grow, iterations=3), near)
    lesions, (components, _) = grown * reference, ndimage.label(prediction, near)
    dice, distances, touched = [], [], set()
    for lesion in range(1, lesions.max() + 1):
        here = lesions == lesion
        found = set(np.unique(components[ndimage.binary_dilation(here, grow, iterations=3)])) - {0}
        touched |= found
        if here.sum() * np.prod(spacing) <= 50:
            continue
        union = np.isin(components, list(found))
        dice.append(2 * (union & here).sum() / (union.sum() + here.sum()))
        apart = peer.compute_surface_distances(here, union, spacing)
        distances.append(min(374.0, peer.compute_robust_hausdorff(apart, 95)))
    false = len(set(range(1, components.max() + 1)) - touched)
    if not dice and not false:
        return 1.0, 0.0
    total = len(dice) + false
    return sum(dice) / total, (sum(distances) + 374.0 * false) / total


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_brats_2023(seed: int) -> None:
    rng, spacing = np.random.default_rng(seed), (1.0, 1.0, 1.0)
    fields = [ndimage.gaussian_filter(rng.normal(size=(40, 44, 36)), 1.6) for _ in range(2)]
    reference = fields[0] > 2.4 * fields[0].std()
    prediction = fields[0] + 0.7 * fields[1] > 2.5 * fields[0].std()
    for mask in (reference, prediction):  # at the edge of the image a dilation may end, here it does not
        mask[:4], mask[-4:], mask[:, :4], mask[:, -4:], mask[..., :4], mask[..., -4:] = [False] * 6
    options = MetricOptions(lesion_dilation=3, lesion_min_ml=0.05, lesion_penalty_mm=374.0, surface="area")
    row = case_rows("a", prediction.astype(np.uint8), reference.astype(np.uint8), spacing, {"s": 1}, options=options)[0]
    assert_allclose((row["lesion_dice"], row["lesion_hd95_mm"]), _brats_2023(prediction, reference, spacing))


def test_only_lesions_too_small_to_count_are_as_none() -> None:
    reference = _masks((0, 1)).astype(np.uint8)
    for rule, ratio in (("one", 1.0), ("zero", 0.0), ("nan", math.nan)):
        options = MetricOptions(lesion_min_ml=0.05, lesion_penalty_mm=374.0, empty=rule)
        row = case_rows("a", reference, reference, ONE, {"s": 1}, options=options)[0]
        assert_allclose([row["lesion_dice"], row["lesion_f1"], row["lesion_hd95_mm"]], [ratio, ratio, 0.0])
        assert row["dice"] == 1.0
        missed = case_rows("a", np.zeros_like(reference), reference, ONE, {"s": 1}, options=options)[0]
        assert_allclose([missed["lesion_dice"], missed["lesion_f1"], missed["lesion_hd95_mm"]], [ratio, ratio, 0.0])
        assert (missed["lesions_reference"], missed["dice"], missed["status"]) == (0, 0.0, "empty_prediction")
        false = case_rows("a", reference, np.zeros_like(reference), ONE, {"s": 1}, options=options)[0]
        assert false["lesions_predicted"] == 1 and not false["lesion_f1"] > 0 and false["lesion_hd95_mm"] == 374.0


def test_only_false_lesions() -> None:
    found = lesion_scores(_masks((0, 4)), _masks(), ONE, penalty_mm=50.0)
    assert (found["lesion_precision"], found["lesion_f1"], found["lesion_dice"], found["lesion_hd95_mm"]) == (
        0,
        0,
        0,
        50,
    )
    assert math.isnan(found["lesion_recall"])


@pytest.mark.parametrize("dilation", [0, 1])
def test_large_boxes_take_another_way_to_the_same_figures(dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(40, 40, 40)), 0.8) > 0.45 for _ in range(2))
    plain = lesion_scores(a, b, ONE, dilation=dilation)
    assert plain["lesions_reference"] > 255 or dilation  # more than the first type that is tried can number
    monkeypatch.setattr("rarevox.pipeline.evaluation.metrics.lesions.LARGE", 0)
    assert lesion_scores(a, b, ONE, dilation=dilation) == plain


def test_memory_stays_under_six_bytes_a_voxel() -> None:
    # Two balls that fill half of the volume: masks, crops, components and surfaces are all as large as the volume.
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in (160, 150, 120)], indexing="ij", sparse=True)
    ball = sum(axis**2 for axis in axes) < 0.9
    maps = [(ball + 0).astype(np.uint8), np.roll(ball, 3, 0).astype(np.uint8)]
    case_rows("a", *(m[:20] for m in maps), ONE, {"s": 1})  # tables and libraries are loaded
    tracemalloc.start()
    case_rows("a", *maps, ONE, {"s": 1})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * ball.size


def test_more_lesions_than_two_bytes_can_number() -> None:
    mask = np.zeros((84, 84, 84), bool)
    mask[::2, ::2, ::2] = True  # 42³ = 74,088 single voxels
    assert lesion_scores(mask, mask[:] & False, ONE)["lesions_predicted"] == 42**3
