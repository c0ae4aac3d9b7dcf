"""Charts in per cent: places by hand, what is drawn and what is left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rarevox.pipeline.evaluation.metrics.aggregate import aggregate
from rarevox.pipeline.evaluation.metrics.rows import failed_rows
from rarevox.pipeline.evaluation.report.charts import (
    MAX_MARKS,
    axis,
    curve_charts,
    distribution,
    log_axis,
    percent,
    size_charts,
    swarm,
)


def _result(dice: list[float], **more: Any) -> dict[str, Any]:
    rows = []
    for number, value in enumerate(dice):
        row = failed_rows(f"c{number}", {"s": 1}, "")[0]
        rows.append(
            row | {"dice": value, "status": "ok", "reference_ml": 1.0 + number, "false_positive_ml": 0.0} | more
        )
    return aggregate(rows, {"s": 1})


def test_axis_holds_its_values_between_round_ticks() -> None:
    for values in ([0.62, 0.97], [-3.0, 12.0], [5.0], [1e-4, 2e-4], []):
        found = axis(values)
        assert all(found["low"] <= value <= found["high"] for value in values)
        places = [tick["at"] for tick in found["ticks"]]
        assert places == sorted(places)
        assert len({tick["text"] for tick in found["ticks"]}) == len(places) >= 2
        assert np.allclose(np.diff(places), np.diff(places)[0], atol=0.02)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_axis_of_one_value_at_its_bound(value: float) -> None:
    found = axis([value], low=0.0 if value == 0 else None, high=1.0 if value == 1 else None)
    assert found["low"] < found["high"]
    assert percent(value, found) == (0 if value == 0 else 100)


def test_log_axis_by_hand() -> None:
    scale = {"low": 1.0, "high": 100.0, "log": True}
    assert percent(10.0, scale) == 50.0
    assert percent(1e9, scale) == 100.0
    assert [tick["text"] for tick in log_axis([0.9, 110])["ticks"]] == ["1", "10", "100"]
    assert log_axis([])["ticks"]
    # Between 2 and 5 there is none of 1, 2 and 5 but these; one tick alone would tell no scale.
    assert [tick["text"] for tick in log_axis([1.4, 2.9])["ticks"]] == ["1.5", "2", "3"]


def test_strip_by_hand() -> None:
    # 0.5, 0.6, 0.7, 0.8, 0.9 on an axis from 0.5 to 1.0: quartiles 0.6 and 0.8, median and mean 0.7.
    chart = distribution(_result([0.5, 0.6, 0.7, 0.8, 0.9]), "dice", "Dice")
    assert chart is not None
    assert (chart["axis"]["low"], chart["axis"]["high"]) == (0.5, 1.0)
    one = chart["strips"][0]
    assert one["box"] == [20.0, 40.0, 60.0]
    assert one["mean"] == 40.0
    assert [mark["at"] for mark in one["marks"]] == [0.0, 20.0, 40.0, 60.0, 80.0]
    assert one["interval"][0] < 40 < one["interval"][1]


def test_gates_are_marked_on_their_structure_and_in_sight() -> None:
    gates = [{"structure": "s", "rule": "mean", "minimum": 0.2}, {"structure": "t", "rule": "mean", "minimum": 0.4}]
    chart = distribution(_result([0.8, 0.9]), "dice", "Dice", gates=gates)
    assert chart is not None
    assert chart["axis"]["low"] <= 0.2
    assert [gate["minimum"] for gate in chart["strips"][0]["gates"]] == [0.2]


def test_marks_at_one_place_are_set_apart_within_the_strip() -> None:
    heights = swarm([50.0] * 30)
    assert len(set(heights)) == 30
    assert all(3 <= height <= 42 for height in heights)


def test_many_cases_keep_both_ends() -> None:
    values = np.random.default_rng(0).random(5000)
    chart = distribution(_result(list(values)), "dice", "Dice")
    assert chart is not None
    one = chart["strips"][0]
    drawn = sorted(mark["value"] for mark in one["marks"])
    assert len(drawn) <= MAX_MARKS
    assert one["left_out"] == 5000 - len(drawn)
    assert drawn[:100] == sorted(values)[:100]
    assert drawn[-100:] == sorted(values)[-100:]


def test_size_chart_by_hand() -> None:
    # Volumes 1 to 6 ml with Dice 0.5 to 1.0: the thirds are 1-2, 3-4 and 5-6 ml with means 0.55, 0.75 and 0.95.
    chart = size_charts(_result([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))[0]
    assert [step["y"] for step in chart["steps"]] == pytest.approx([90, 50, 10])
    assert chart["dots"][0]["y"] == 100.0
    assert chart["dots"][-1]["y"] == 0.0
    assert size_charts(_result([0.5])) == []


def test_curves_leave_gaps_where_nothing_was_measured() -> None:
    validation = [{"iteration": i, "dice": {"s": d}, "mean_dice": d} for i, d in ((10, 0.5), (20, None), (30, 1.0))]
    (chart,) = curve_charts({"validation": validation})
    assert [line["name"] for line in chart["lines"]] == ["s", "mean"]
    assert len(chart["lines"][0]["runs"]) == 2
    assert chart["lines"][0]["runs"][1].endswith(",0.0")
    assert curve_charts({}) == []


def test_a_point_without_neighbours_is_a_dot() -> None:
    """A single validation at iteration 90, Dice 0.25: at the right edge, as high as the axis has 0.25."""
    (alone,) = curve_charts({"validation": [{"iteration": 90, "dice": {"s": 0.25}, "mean_dice": 0.25}]})
    low, high = alone["y"]["low"], alone["y"]["high"]
    for line in alone["lines"]:
        (dot,) = line["dots"]
        assert dot["x"] == 100.0
        assert dot["y"] == pytest.approx(100 * (high - 0.25) / (high - low), abs=0.01)
    several = [(10, 0.5), (20, None), (30, 1.0), (40, 0.9)]
    (chart,) = curve_charts({"validation": [{"iteration": i, "dice": {"s": d}, "mean_dice": d} for i, d in several]})
    assert [len(line["dots"]) for line in chart["lines"]] == [1, 1]  # the first one; the others are joined


def test_running_mean_of_a_constant_is_the_constant() -> None:
    (chart,) = curve_charts({"train": [{"iteration": i, "loss": 2.0} for i in range(1, 100)]})
    heights = {point.split(",")[1] for point in chart["lines"][1]["runs"][0].split()}
    assert len(heights) == 1


def test_nothing_to_draw() -> None:
    assert distribution(aggregate([], {"s": 1}), "dice", "Dice") is None
    assert distribution(_result([math.nan]), "dice", "Dice") is None
