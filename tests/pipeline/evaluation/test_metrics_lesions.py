"""Lesion-wise figures, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline.evaluation.metrics_lesions import lesion_scores

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


def test_only_false_lesions() -> None:
    found = lesion_scores(_masks((0, 4)), _masks(), ONE, penalty_mm=50.0)
    assert (found["lesion_precision"], found["lesion_f1"], found["lesion_dice"], found["lesion_hd95_mm"]) == (
        0,
        0,
        0,
        50,
    )
    assert math.isnan(found["lesion_recall"])


def test_more_lesions_than_two_bytes_can_number() -> None:
    mask = np.zeros((84, 84, 84), bool)
    mask[::2, ::2, ::2] = True  # 42³ = 74,088 single voxels
    assert lesion_scores(mask, mask[:] & False, ONE)["lesions_predicted"] == 42**3
