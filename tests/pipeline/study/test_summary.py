"""Median and quartiles against NumPy and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rarevox.pipeline.study.summary import (
    batch_dice,
    constant_dice,
    falling,
    held_out,
    quartiles,
    step_seconds,
    train_dice,
)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 200, 201])
def test_the_last_iterations_as_numpy_has_them(count: int) -> None:
    dice = np.random.default_rng(count).uniform(size=(300, 1))
    found = train_dice({"dice": dice}, count)
    expected = np.quantile(dice[300 - count :, 0], [0.25, 0.5, 0.75])
    # Each is an interpolation between two of the values: two roundings of numbers under 1.
    np.testing.assert_allclose([found.q1, found.median, found.q3], expected, rtol=0, atol=4 * np.finfo(float).eps)


def test_by_hand() -> None:
    """Of 0, 1, …, 8 the quartiles are 2, 4 and 6; NaN counts for nothing; fewer iterations than asked for are all."""
    found = quartiles(np.array([8, 0, math.nan, 1, 2, 3, 7, 6, 5, 4], float))
    assert (found.q1, found.median, found.q3) == (2, 4, 6)
    assert train_dice({"dice": np.array([[0.25], [0.75]])}, 200).median == 0.5
    assert math.isnan(quartiles(np.array([])).median)


def test_the_dice_of_marking_every_voxel_is_that_of_a_map_of_ones() -> None:
    """Counted on drawn reference maps; of several structures, or no step, there is none."""
    rng = np.random.default_rng(0)
    maps = rng.random((7, 3, 40)) < rng.uniform(0.1, 0.6, (7, 1, 1))  # steps, patches, voxels
    counted = [2 * step.sum() / (step.size + step.sum()) for step in maps]
    record = {"dice": np.zeros((7, 1)), "foreground_share": maps.mean(axis=2)}
    # A mean of three shares, a quotient and at most one mean of two: a handful of roundings of numbers up to 1.
    assert constant_dice(record, 4) == pytest.approx(float(np.median(counted[-4:])), abs=8 * np.finfo(float).eps)
    assert math.isnan(constant_dice(record | {"dice": np.zeros((7, 2))}, 4))
    assert math.isnan(constant_dice({"dice": np.zeros((0, 1)), "foreground_share": np.zeros((0, 0))}, 4))


def test_a_loss_on_its_plateau_falls_by_chance_alone() -> None:
    """Of 400 losses that are noise about 1, the last quarter of each falls with p < 0.05 in some 20, by 3 standard
    deviations (4.4 each) at most 33; what happened before that does not count, and a fall of three deviations is seen.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(1, 0.1, (400, 400))
    noise[:, :300] += np.linspace(5, 0, 300)
    assert sum(falling({"loss": loss}) < 0.05 for loss in noise) <= 33
    assert falling({"loss": noise[0] + np.linspace(1.2, 0, 400)}) < 0.05
    assert falling({"loss": np.full(100, 0.5)}) == 1.0
    assert math.isnan(falling({"loss": np.zeros(16)}))


def test_structures_that_are_absent_have_no_share() -> None:
    assert batch_dice({"dice": np.array([[0.2, math.nan], [0.2, 0.4]])}).tolist() == pytest.approx([0.2, 0.3])


def test_held_out_cases_by_structure() -> None:
    """lesion: 0.5 and 0.9, mean 0.7; organ: 0.3 and none, mean 0.3; mean of both 0.5, median of three 0.5."""
    dice = {("a", "lesion"): 0.5, ("b", "lesion"): 0.9, ("a", "organ"): 0.3, ("b", "organ"): None}
    rows = [{"case": case, "structure": structure, "dice": value} for (case, structure), value in dice.items()]
    found = held_out(rows)
    assert found.mean_dice == pytest.approx(0.5) and found.median_dice == 0.5 and len(found.cases) == 4
    assert held_out(rows, ["lesion"]).mean_dice == pytest.approx(0.7)
    apart = held_out(rows, mean_over=["lesion"])  # as where the organ is a union of others
    assert apart.mean_dice == pytest.approx(0.7) and apart.median_dice == pytest.approx(0.7) and len(apart.cases) == 4
    assert math.isnan(held_out([]).mean_dice)


def test_time_of_steps_by_the_log(tmp_path: Path) -> None:
    """Steps end at 3, 5 and 7 s: two intervals of 2 s, so three steps take 6 s."""
    (tmp_path / "logs").mkdir()
    rows = [{"iteration": n, "seconds": s} for n, s in enumerate((3.0, 5.0, 7.0), start=1)]
    (tmp_path / "logs" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert step_seconds(tmp_path) == 6.0
    assert step_seconds(tmp_path / "none") == 0.0
