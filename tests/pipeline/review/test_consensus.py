"""STAPLE: parity with a plain expectation maximisation, and what a consensus must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rarevox.pipeline.review.consensus import MARGIN, consensus, staple


def _ball(radius: float, shift: int = 0) -> np.ndarray:
    x, y, z = np.ogrid[:24, :20, :18]
    return (x - 11 - shift) ** 2 + (y - 10) ** 2 + (z - 9) ** 2 <= radius**2


def _plain_staple(masks: list[np.ndarray], rounds: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Warfield 2004, equations 14 to 19, voxel by voxel: probability, sensitivities, specificities."""
    marked = np.stack([mask.ravel() for mask in masks]).astype(float)
    prior = marked.mean()
    p = q = np.full(len(masks), 0.99999)
    for _ in range(rounds):
        inside = prior * np.prod(np.where(marked == 1, p[:, None], 1 - p[:, None]), axis=0)
        outside = (1 - prior) * np.prod(np.where(marked == 0, q[:, None], 1 - q[:, None]), axis=0)
        w = inside / (inside + outside)
        p, q = (marked @ w) / w.sum(), ((1 - marked) @ (1 - w)) / (1 - w).sum()
    return w.reshape(masks[0].shape), p, q


def test_equal_to_a_plain_expectation_maximisation() -> None:
    masks = [_ball(5), _ball(6), _ball(5, 2), _ball(4, -1)]
    found = staple(masks)
    assert found.box is not None
    padded = [np.pad(mask[found.box], MARGIN) for mask in masks]
    probability, p, q = _plain_staple(padded)
    inner = (slice(MARGIN, -MARGIN),) * 3
    assert_allclose(found.probability, probability[inner], atol=1e-6)
    assert_allclose(found.sensitivity, p, atol=1e-6)
    assert_allclose(found.specificity, q, atol=1e-6)


def test_finds_the_truth_and_the_annotators_rates_in_a_simulation() -> None:
    # Five independent annotators over a random truth of 30 %: three good ones, one who misses much, one who adds much.
    rng = np.random.default_rng(0)
    truth = rng.random((30, 30, 30)) < 0.3
    rates = [(0.9, 0.95), (0.9, 0.95), (0.85, 0.9), (0.5, 0.99), (0.95, 0.7)]
    masks = [np.where(truth, rng.random(truth.shape) < p, rng.random(truth.shape) >= q) for p, q in rates]
    found = staple(masks)
    inside, margin = (~truth).sum(), (30 + 2 * MARGIN) ** 3 - truth.size
    for (p, q), sensitivity, specificity in zip(rates, found.sensitivity, found.specificity, strict=True):
        assert sensitivity == pytest.approx(p, abs=0.02)
        # Nobody marks anything in the margin, which counts as well.
        assert specificity == pytest.approx((q * inside + margin) / (inside + margin), abs=0.02)
    labels, _ = consensus([mask.astype(np.uint8) for mask in masks], [1])

    def errors(mask: np.ndarray) -> int:
        return int((mask != truth).sum())

    assert errors(labels == 1) < min(map(errors, masks))


def test_background_around_changes_nothing() -> None:
    masks = [_ball(5), _ball(6), _ball(5, 2)]
    wide = [np.pad(mask, ((3, 40), (0, 7), (20, 20))) for mask in masks]
    small, large = staple(masks), staple(wide)
    assert_array_equal(small.probability, large.probability)
    assert small.sensitivity == large.sensitivity
    assert small.specificity == large.specificity


def test_the_order_of_annotators_changes_nothing() -> None:
    masks = [_ball(5), _ball(6), _ball(5, 2)]
    one, other = staple(masks), staple(masks[::-1])
    assert_allclose(one.probability, other.probability, atol=1e-9)
    assert_allclose(one.sensitivity, other.sensitivity[::-1], atol=1e-9)


def test_of_three_two_that_agree_win_and_agreement_is_kept() -> None:
    a, b = (_ball(5) * 2).astype(np.int16), (_ball(5, 1) * 2).astype(np.int16)
    assert_array_equal(consensus([a, b, a], [2])[0], a)
    labels, found = consensus([a, a], [2])
    assert_array_equal(labels, a)
    assert found[2].sensitivity == found[2].specificity == (1.0, 1.0)
    assert_array_equal(consensus([b], [2])[0], b)


def test_what_nobody_marked_is_not_there() -> None:
    empty = np.zeros((6, 5, 4), np.uint8)
    labels, found = consensus([empty, empty, empty], [1])
    assert not labels.any()
    assert all(math.isnan(p) for p in found[1].sensitivity)
    alone = empty.copy()
    alone[2, 2, 2] = 1
    labels, found = consensus([alone, empty, empty], [1])  # one voxel of one of three annotators
    assert not labels.any()
    assert all(math.isnan(p) for p in found[1].sensitivity)


def test_each_voxel_gets_one_label_and_equal_ones_the_lowest() -> None:
    # Two annotators name the same cube differently: both values have the same probability there.
    one = np.zeros((9, 9, 9), np.int32)
    one[3:6, 3:6, 3:6] = 700
    other = np.where(one, 9, 0)
    labels, found = consensus([one, other], [700, 9])
    assert_allclose(found[9].probability, found[700].probability)
    expected = 9 if (found[9].probability >= 0.5).all() else 0
    assert set(np.unique(labels[one > 0])) == {expected}
    labels, _ = consensus([one, one, other], [9, 700])
    assert_array_equal(labels, one)
    assert not consensus([one, one, one], [9])[0].any()  # 700 is not asked for


def test_maps_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="maps of one shape"):
        consensus([np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int)], [1])
    with pytest.raises(ValueError, match="maps of one shape"):
        consensus([], [1])
