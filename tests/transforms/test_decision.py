"""Thresholds, scores and confidences: the rule by hand, identities, and its meaning for any number of classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.transforms.decision import Decision, at_temperature, read_points
from tests.bounds import unit_roundoff

EPS32 = unit_roundoff(torch.float32)

PROBABILITIES = st.integers(2, 5).flatmap(lambda n: st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n))


def _logs(values: list[float]) -> torch.Tensor:
    p = torch.tensor(values, dtype=torch.float64)
    return (p / p.sum()).log()


def test_the_rule_by_hand() -> None:
    # w = (1 - 0.25)/0.25 = 3 for a, 1 for b. 3·0.2 = 0.6 > 0.5 > 0.3.
    decision = Decision({"a": {"threshold": 0.25}}, ["a", "b"])
    assert decision.weighted(torch.tensor([0.5, 0.2, 0.3])).argmax() == 1
    # 3·0.1 = 0.3 < 0.5 < 0.4 is false: b has 0.4, the background 0.5.
    assert decision.weighted(torch.tensor([0.5, 0.1, 0.4])).argmax() == 0
    assert decision.thresholds == [0.25, 0.5]


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_one_structure_is_there_where_its_probability_is_above_the_threshold(p: float, threshold: float) -> None:
    if abs(p - threshold) < 1e-5:  # float32 of (1 - t)/t · p against 1 - p
        return
    weighted = Decision({"lesion": {"threshold": threshold}}, ["lesion"]).weighted(torch.tensor([1 - p, p]))
    assert bool(weighted[1] > weighted[0]) == (p > threshold)


@given(PROBABILITIES)
def test_thresholds_of_one_half_are_the_most_probable_class(values: list[float]) -> None:
    names = [f"s{n}" for n in range(len(values) - 1)]
    p = _logs(values).exp()
    for points in ({}, {name: {"threshold": 0.5} for name in names}):
        decision = Decision(points, names)
        assert not decision.moves
        assert torch.equal(decision.weighted(p), p)


@given(PROBABILITIES, st.data())
def test_a_voxel_is_a_structure_exactly_where_its_score_is_above_its_threshold(values: list[float], data: Any) -> None:
    names = [f"s{n}" for n in range(len(values) - 1)]
    points = {name: {"threshold": data.draw(st.floats(0.05, 0.95))} for name in names}
    decision, logs = Decision(points, names), _logs(values)
    label = int(decision.weighted(logs.exp()).argmax())
    for number, threshold in enumerate(decision.thresholds, start=1):
        score = float(decision.scores(logs, number))
        # The logarithms' rounding moves a score, whose slope is at most 1/4, by about their size times EPS32.
        if abs(score - threshold) > 16 * EPS32 * (1 + float(logs.abs().max())):
            assert (score > threshold) == (label == number)


@given(st.floats(0.05, 0.95), st.floats(0.3, 3.0), st.floats(0.3, 3.0))
def test_another_temperature_gives_the_same_labels(threshold: float, before: float, after: float) -> None:
    # At T the probability of logit x is sigmoid(x / T); the label begins at x = T · logit(t), whatever T.
    moved = at_temperature({"a": {"threshold": threshold}}, before, after)["a"]["threshold"]
    begin = before * math.log(threshold / (1 - threshold))
    # A few roundings of moved (2^-53 each) move its logit by as much over p(1 - p); kept 1e-12 away from 0 and 1.
    slack = after * 8 * 2**-53 / (moved * (1 - moved)) + abs(begin) * 8 * 2**-53
    if 1e-11 < moved < 1 - 1e-11:
        assert abs(after * math.log(moved / (1 - moved)) - begin) <= slack


@pytest.mark.parametrize("empty", [None, {}])
def test_another_temperature_leaves_a_structure_without_entries_without(empty: Any) -> None:
    moved = at_temperature({"a": empty, "b": {"threshold": 0.8, "confidence": None}}, 1.0, 2.0)
    assert read_points(moved, ["a", "b"]) == {"a": {}, "b": {"threshold": pytest.approx(2 / 3), "confidence": None}}


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ({"b": {"threshold": 0.2}}, "no structure is called 'b'"),
        ({"a": {"threshold": 0}}, "between 0 and 1"),
        ({"a": {"threshold": 1.0}}, "between 0 and 1"),
        ({"a": {"threshold": "half"}}, "between 0 and 1"),
        ({"a": {"confidence": 1.5}}, "expected 0 to 1"),
        ({"a": {"confidence": True}}, "expected 0 to 1"),
        ({"a": {"treshold": 0.4}}, "no entry 'treshold'"),
        ({"a": 0.4}, "expected for example"),
        ([0.4], "expected for example"),
    ],
)
def test_wrong_points_are_refused(points: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_points(points, ["a"])


def test_a_confidence_of_zero_is_none() -> None:
    assert not Decision({"a": {"threshold": 0.5, "confidence": 0}}, ["a"])
    assert Decision({"a": {"confidence": 0.9}}, ["a"]).confidences == {1: 0.9}


def test_scores_are_shares_of_two() -> None:
    assert np.isclose(float(Decision({}, ["a"]).scores(torch.tensor([0.9, 0.1]).log(), 1)), 0.1, atol=4 * EPS32)
