"""Centreline Dice: by hand where the centreline is known, against its definition, and as scikit-image thins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.evaluation.metrics import centreline
from rarevox.pipeline.evaluation.metrics.centreline import centreline_dice, is_there
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows


def _middle(mask: np.ndarray) -> np.ndarray:
    """The centreline of tubes of 3×3 along the first axis: the voxels with all neighbours in the plane."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    around = [padded[:, y : y + mask.shape[1], z : z + mask.shape[2]] for y in range(3) for z in range(3)]
    return np.logical_and.reduce(around)


def _tube(begin: int, end: int, y: int = 4) -> np.ndarray:
    mask = np.zeros((20, 9, 9), bool)
    mask[begin:end, y - 1 : y + 2, 3:6] = True
    return mask


def test_a_gap_costs_what_is_missing_of_the_line() -> None:
    # The line of the prediction lies wholly in the reference; 4 of 20 voxels of the reference's line are missing.
    whole, broken = _tube(0, 20), _tube(0, 8) | _tube(12, 20)
    assert centreline_dice(broken, whole, thin=_middle) == pytest.approx(2 * 0.8 / 1.8)
    assert centreline_dice(whole, whole, thin=_middle) == 1.0


def test_width_does_not_matter_and_what_is_beside_is_nothing() -> None:
    wide = _tube(0, 20) | _tube(0, 20, y=5)
    assert centreline_dice(_tube(0, 20), wide, thin=lambda mask: _middle(mask) & _tube(0, 20)) == 1.0
    assert centreline_dice(_tube(0, 5), _tube(10, 20), thin=_middle) == 0.0


@given(st.integers(0, 10_000))
def test_both_sides_are_alike(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.random((6, 5, 4)) < 0.5 for _ in range(2))
    a[0, 0, 0] = b[1, 1, 1] = True
    found = centreline_dice(a, b, thin=lambda mask: mask)
    assert found == pytest.approx(centreline_dice(b, a, thin=lambda mask: mask))
    # A mask that is its own centreline: the Dice.
    assert found == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_empty_masks_are_the_rules_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    assert math.isnan(centreline_dice(_tube(0, 0), _tube(0, 9), thin=_middle))
    monkeypatch.setattr("rarevox.pipeline.evaluation.metrics.options.is_there", lambda: True)
    monkeypatch.setattr(centreline, "skeleton", _middle)
    options = MetricOptions(centreline=True, distances=False, lesions=False)
    empty = np.zeros((20, 9, 9), bool)
    assert case_rows("a", empty, _tube(0, 9), (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] == 0.0
    assert case_rows("a", empty, empty, (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] == 1.0


@pytest.mark.skipif(is_there(), reason="scikit-image is installed")
def test_without_scikit_image_the_request_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--editable '\.\[centreline\]' in the checkout"):
        MetricOptions(centreline=True)


def test_scikit_image() -> None:
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    options = MetricOptions(centreline=True, distances=False, lesions=False)
    row = case_rows("a", _tube(0, 8) | _tube(12, 20), _tube(0, 20), (1, 1, 1), {"s": 1}, options=options)[0]
    # Thinning shortens a line at its ends by about its radius: 1 voxel at each of the six ends.
    assert row["cldice"] == pytest.approx(2 * 0.8 / 1.8, abs=0.12)
    assert case_rows("a", _tube(0, 20), _tube(0, 20), (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] == 1.0
