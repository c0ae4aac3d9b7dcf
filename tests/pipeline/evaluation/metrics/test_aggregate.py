"""Aggregates: figures by hand, the rule for failures, order, shards, and the coverage of the interval."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rarevox.pipeline.evaluation.metrics.aggregate import (
    _macro_interval,
    aggregate,
    bootstrap_means,
    by_size,
    interval,
    pooled,
    write_results,
)
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows

STRUCTURES = {"background": 0, "core": 1, "edge": 2}


def _rows(cases: int = 8, options: MetricOptions | None = None) -> list[dict]:
    rows = []
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        reference = rng.integers(0, 3, (4, 4, 4)).repeat(2, 0).repeat(2, 1)
        prediction = np.where(rng.random(reference.shape) < 0.1 * (seed + 1), 0, reference)
        rows += case_rows(f"case{seed}", prediction, reference, (1, 1, 2), STRUCTURES, options=options)
    return rows


def _plain(case: str, dice: float, status: str = "ok", reference_ml: float = 1.0) -> dict:
    row = failed_rows(case, {"s": 1}, "")[0] | {"dice": dice, "status": status, "reference_ml": reference_ml}
    return row | {"tp": 1, "fp": 1, "fn": 1, "false_positive_ml": 0.25}


def test_figures_by_hand() -> None:
    # 0.2, 0.4, 0.6, 1.0: mean 0.55, deviations −0.35, −0.15, 0.05, 0.45, squares 0.1225 + 0.0225 + 0.0025 + 0.2025 =
    # 0.35, SD √(0.35/3); quartiles at ranks 0.75, 1.5, 2.25: 0.35, 0.5, 0.7.
    result = aggregate([_plain(str(i), d) for i, d in enumerate((0.6, 0.2, 1.0, 0.4))], {"s": 1})
    dice = result["structures"]["s"]["dice"]
    assert_allclose([dice["mean"], dice["std"], dice["median"]], [0.55, math.sqrt(0.35 / 3), 0.5])
    assert_allclose(dice["iqr"], [0.35, 0.7])
    assert (dice["n"], dice["min"], dice["max"]) == (4, 0.2, 1.0)
    assert dice["ci95"][0] < 0.55 < dice["ci95"][1]


def test_statuses_are_counted_and_failures_pull_the_mean_down() -> None:
    rows = [_plain("a", 1.0), _plain("b", 1.0, "empty_both", 0.0), _plain("c", 0.0, "empty_reference", 0.0)]
    rows += failed_rows("d", {"s": 1}, "no file")
    result = aggregate(rows, {"s": 1})
    summary = result["structures"]["s"]
    assert (summary["n_cases"], summary["n_valid"], summary["n_empty"], summary["n_failed"]) == (4, 1, 2, 1)
    assert result["mean_dice"] == 0.5
    assert result["failed"] == [{"case": "d", "reason": "no file"}]
    assert summary["empty_reference_false_positive_ml"] == {"n": 2, "mean": 0.25}
    assert (
        "empty_reference_false_lesions"
        not in aggregate(rows, {"s": 1}, options=MetricOptions(lesions=False))["structures"]["s"]
    )


def test_where_the_reference_is_empty_every_lesion_is_false() -> None:
    # Two blobs that do not touch, and nothing: 2 and 0 lesions, their mean 1; the third case has a reference.
    empty, blobs = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint8)
    blobs[1, 1, 1] = blobs[5:7, 5, 5] = 1
    cases = {"a": (blobs, empty), "b": (empty, empty), "c": (blobs, blobs)}
    rows = [row for case, pair in cases.items() for row in case_rows(case, *pair, (1.0, 1.0, 1.0), {"s": 1})]
    summary = aggregate(rows, {"s": 1})["structures"]["s"]
    assert summary["empty_reference_false_lesions"] == {"n": 2, "mean": 1.0}
    assert summary["empty_reference_false_positive_ml"] == {"n": 2, "mean": 0.0015}


def test_rule_nan_leaves_out_and_counts() -> None:
    rows = [_plain("a", 0.5), _plain("b", math.nan, "empty_reference")]
    dice = aggregate(rows, {"s": 1}, options=MetricOptions(empty="nan"))["structures"]["s"]["dice"]
    assert (dice["mean"], dice["n"]) == (0.5, 1)
    assert all(math.isnan(bound) for bound in dice["ci95"])


def test_background_is_not_in_the_mean() -> None:
    result = aggregate(_rows(), STRUCTURES)
    assert list(result["structures"]) == ["core", "edge"]
    assert_allclose(result["mean_dice"], np.mean([s["dice"]["mean"] for s in result["structures"].values()]))
    options = MetricOptions(include_background=True)
    asked = aggregate(_rows(options=options), STRUCTURES, options=options)
    assert list(asked["structures"]) == ["background", "core", "edge"]
    assert asked["mean_dice"] > result["mean_dice"]


def test_order_of_the_rows_changes_nothing() -> None:
    rows = _rows()
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert json.dumps(aggregate(rows, STRUCTURES)) == json.dumps(aggregate(shuffled, STRUCTURES))


def test_pooled_sums_of_shards_add_up() -> None:
    rows = [row for row in _rows() if row["structure"] == "core"]
    parts = [pooled(rows[:3]), pooled(rows[3:])]
    whole = pooled(rows)
    assert all(whole[name] == parts[0][name] + parts[1][name] for name in ("tp", "fp", "fn"))
    tp, fp, fn = whole["tp"], whole["fp"], whole["fn"]
    assert_allclose(whole["dice"], 2 * tp / (2 * tp + fp + fn))


def test_pooled_takes_what_is_known_of_failures() -> None:
    reference = np.ones((2, 2, 2), int)
    rows = failed_rows("a", {"s": 1}, "", reference=reference, spacing_mm=(1, 1, 1)) + failed_rows("b", {"s": 1}, "")
    assert pooled(rows)["fn"] == 8


def test_no_cases_at_all() -> None:
    result = aggregate([], {"s": 1})
    assert math.isnan(result["mean_dice"])
    assert result["structures"]["s"]["dice"]["n"] == 0


def test_size_strata_by_hand() -> None:
    rows = [_plain(str(i), i / 10, reference_ml=float(i)) for i in range(1, 7)]
    strata = by_size(rows)
    assert [strata[size]["n"] for size in ("small", "medium", "large")] == [2, 2, 2]
    assert_allclose([strata[size]["dice_mean"] for size in ("small", "medium", "large")], [0.15, 0.35, 0.55])
    assert by_size(rows[:5]) == {}


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    # 400 experiments of 100 cases: the interval should cover in nearly 95 % of them, and the share of 400 has a
    # standard deviation of √(0.95·0.05/400) = 1.1 %.
    rng, covered = np.random.default_rng(1), 0
    for experiment in range(400):
        values = rng.beta(8, 2, size=(100, 1))
        low, high = interval(bootstrap_means(values, MetricOptions(seed=experiment, resamples=500))[:, 0])
        covered += low <= 0.8 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_bootstrap_spread_is_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=(200, 1))
    draws = bootstrap_means(values, MetricOptions(resamples=4000))
    assert_allclose(draws.std(), values.std() / math.sqrt(200), rtol=0.05)
    assert_allclose(draws.mean(), values.mean(), atol=0.01)


def test_visits_of_a_subject_are_drawn_together() -> None:
    """Every subject scanned twice, with the same figures, says no more than scanned once."""
    values = np.random.default_rng(0).random((12, 1))
    options = MetricOptions(resamples=200)
    once, twice = bootstrap_means(values, options), np.repeat(values, 2, axis=0)
    visits = bootstrap_means(twice, options, [f"s{n // 2}" for n in range(24)])
    np.testing.assert_allclose(visits, once, rtol=24 * np.finfo(float).eps)  # sums of 24 terms in another order
    # Taken as 24 subjects, the spread is that of a mean of twice as many: its square root of two less, and of 200
    # resamples a standard deviation is known to 5 %.
    assert np.std(bootstrap_means(twice, options)) < 0.85 * np.std(once)
    assert np.isnan(bootstrap_means(values, options, ["a"] * 12)).all()


def test_rows_say_whose_they_are() -> None:
    """Two visits of each subject in the rows: intervals, of a structure and of the mean, as if each came once."""
    once = _rows(8)
    twice = [{**row, "case": f"{row['case']}_{visit}", "subject": row["case"]} for row in once for visit in (1, 2)]
    wanted, found = aggregate(once, STRUCTURES), aggregate(twice, STRUCTURES)
    assert found["mean_dice_ci95"] == pytest.approx(wanted["mean_dice_ci95"], rel=1e-12)
    core = (result["structures"]["core"]["dice"] for result in (wanted, found))
    assert next(core)["ci95"] == pytest.approx(next(core)["ci95"], rel=1e-12)
    assert found["n_cases"] == 16


def test_a_mean_over_structures_has_no_interval_that_it_is_not_in() -> None:
    """A structure of one subject is in the mean, and has no spread: that of the mean is not known."""
    options = MetricOptions(empty="nan")
    rows = [
        {"case": f"c{n}", "structure": "core", "status": "ok", "reason": "", "dice": 0.8 + n / 100} for n in range(5)
    ]
    alone = [{**rows[n], "structure": "edge", "dice": 0.1, "subject": "a"} for n in (0, 1)]
    rows = [{**row, "subject": "a"} if row["case"] in ("c0", "c1") else row for row in rows]
    assert np.isnan(_macro_interval([*rows, *alone], ["core", "edge"], options)).all()
    assert np.isfinite(_macro_interval(rows, ["core", "edge"], options)).all()


def test_bootstrap_ignores_missing_figures() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    padded = np.concatenate([np.hstack([values, np.full_like(values, np.nan)]), [[np.nan, 1.0]] * 5])
    draws = bootstrap_means(padded, MetricOptions())
    assert_allclose(interval(draws[:, 0]), interval(bootstrap_means(values, MetricOptions())[:, 0]), atol=0.05)
    assert (draws[:, 1][np.isfinite(draws[:, 1])] == 1.0).all()


@pytest.mark.parametrize("wrong", [["a", "a"], ["a", "b"]])
def test_double_and_undeclared_rows_are_refused(wrong: list[str]) -> None:
    rows = [_plain(case, 1.0) for case in wrong]
    structures = {"s": 1} if wrong[0] == wrong[1] else {"t": 1}
    with pytest.raises(ValueError, match="two rows" if wrong[0] == wrong[1] else "declared"):
        aggregate(rows, structures)


def test_files_hold_the_contract(tmp_path) -> None:
    rows = _rows(3) + failed_rows("lost", STRUCTURES, "no prediction")
    result = aggregate(rows, STRUCTURES)
    written = json.loads(write_results(tmp_path, result, extra={"data": "abc"}).read_text())
    assert {"structures", "mean_dice", "cases", "conventions", "versions", "data"} <= set(written)
    assert {"mean", "std", "median", "iqr", "ci95", "n"} <= set(written["structures"]["core"]["dice"])
    with (tmp_path / "cases.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == len(written["cases"]) == 8
    for text, row in zip(table, written["cases"], strict=True):
        assert text["case"] == row["case"]
        assert (float(text["dice"]) if text["dice"] else None) == row["dice"]
        assert (float(text["hd95_mm"]) if text["hd95_mm"] else None) == row["hd95_mm"]
