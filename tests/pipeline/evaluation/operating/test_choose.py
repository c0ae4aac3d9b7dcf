"""The choice for each aim by hand; figures as in the rows of an evaluation; what holds on cases left out decides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.operating.candidates import COUNTS, CaseTable
from rarevox.pipeline.evaluation.operating.choose import (
    CONFIDENCES,
    DEFAULT,
    NOWHERE,
    THRESHOLDS,
    Aim,
    choice,
    choose,
    figures,
)
from rarevox.pipeline.evaluation.operating.detection import detections

OPTIONS = MetricOptions(resamples=50, distances=False)
SHAPE = len(THRESHOLDS), len(CONFIDENCES)


def _table(name: str = "x", voxels: int = 10, lesions: int = 4, **counts: dict[tuple[int, int], int]) -> CaseTable:
    """Nothing is predicted but at the candidates that are given."""
    filled = {key: np.zeros(SHAPE, np.int64) for key in COUNTS}
    for key, places in counts.items():
        for at, number in places.items():
            filled[key][at] = number
    return CaseTable(name, filled, voxels, lesions)


def _near(threshold: float) -> int:
    return int(np.abs(np.array(THRESHOLDS) - threshold).argmin())


def test_each_aim_takes_its_own() -> None:
    a, b, c = (_near(0.2), 0), (_near(0.5), 0), (_near(0.3), 3)
    # Dice 2·8/(12+10), 2·5/(5+10), 2·6/(8+10); lesions found 4, 2, 3; false 6, 0, 1.
    table = _table(
        tp={a: 8, b: 5, c: 6},
        predicted={a: 12, b: 5, c: 8},
        detected={a: 4, b: 2, c: 3},
        true={a: 4, b: 2, c: 3},
        false={a: 6, b: 0, c: 1},
    )
    assert choose([table], Aim("dice"), OPTIONS) == a
    # F1: precision 0.4 and recall 1, 4/7; 1 and 1/2, 2/3; 3/4 and 3/4, 3/4.
    assert choose([table], Aim("lesion_f1"), OPTIONS) == c
    assert figures(table, "lesion_f1", OPTIONS)[a] == pytest.approx(4 / 7)
    assert choose([table], Aim("recall", 1.0), OPTIONS) == c
    assert choose([table], Aim("recall", 0.0), OPTIONS) == b
    assert choose([table], Aim("recall", 6.0), OPTIONS) == a


def test_painting_everything_serves_no_aim_of_lesions() -> None:
    """At 0.01 one component touches all four lesions and is true: recall 1, F1 1, no false one; its Dice is 20/1010."""
    all_of_it, modest = (_near(0.01), 0), (_near(0.4), 0)
    table = _table(
        tp={DEFAULT: 8, modest: 8, all_of_it: 10},
        predicted={DEFAULT: 10, modest: 11, all_of_it: 1000},
        detected={DEFAULT: 2, modest: 3, all_of_it: 4},
        true={DEFAULT: 2, modest: 3, all_of_it: 1},
        false={DEFAULT: 1, modest: 1, all_of_it: 0},
    )
    for name in ("lesion_f1", "recall"):
        assert choose([table], Aim(name, 1.0), OPTIONS) == modest
        assert choose([table], Aim(name, 1.0, dice_cost=1.0), OPTIONS) == all_of_it
    # The same of a network too unsure to mark anything at 0.5: its Dice of 0 excuses nothing.
    unsure = _table(
        tp={modest: 8, all_of_it: 10},
        predicted={modest: 11, all_of_it: 1000},
        detected={modest: 3, all_of_it: 4},
        true={modest: 3, all_of_it: 1},
        false={modest: 1, all_of_it: 0},
    )
    for name in ("lesion_f1", "recall"):
        assert choose([unsure], Aim(name, 1.0), OPTIONS) == modest
    told = choice([table], Aim("recall", 0.5), OPTIONS)
    assert told["reason"] == "no candidate that costs at most 0.05 of Dice has so few false lesions (--dice-cost)"
    told = choice([table], Aim("recall", 1.0), OPTIONS)
    assert (told["without"]["dice"], told["with"]["dice"]) == (pytest.approx(16 / 20), pytest.approx(16 / 21))
    assert (told["without"]["volume_ml"], told["with"]["volume_ml"]) == (pytest.approx(0.01), pytest.approx(0.011))


def test_a_subject_says_nothing_of_itself() -> None:
    """Two scans of one patient agree on a threshold, at which the scan of another has nothing."""
    low, high = (_near(0.2), 0), (_near(0.8), 0)
    tables = [
        replace(_table(name, tp={best: 10, DEFAULT: 5}, predicted={best: 10, DEFAULT: 10}), subject=subject)
        for name, subject, best in (("a1", "a", low), ("a2", "a", low), ("b", "", high))
    ]
    crossed = choice(tables, Aim("dice"), OPTIONS)["cross_validated"]
    assert crossed["chosen"] == {"a1": [0.8, 0.0], "a2": [0.8, 0.0], "b": [0.2, 0.0]}
    assert crossed["mean"] == 0.0
    told = choice(tables[:2], Aim("dice"), OPTIONS)
    assert told["cross_validated"] is None
    assert not told["taken"]


def test_of_equal_candidates_the_plainest() -> None:
    places = [(_near(0.3), 0), (_near(0.45), 0), (_near(0.6), 0), (_near(0.5), 4)]
    table = _table(tp=dict.fromkeys(places, 10), predicted=dict.fromkeys(places, 10))
    assert choose([table], Aim("dice"), OPTIONS) == (_near(0.45), 0)


def test_a_gain_that_does_not_hold_on_others_is_not_taken() -> None:
    low, high = (_near(0.2), 0), (_near(0.8), 0)
    # Each is best at its own end and useless at the other's; the middle gives 0.5 in both.
    tables = [
        _table(name, tp={best: 10, DEFAULT: 5}, predicted={best: 10, DEFAULT: 10})
        for name, best in (("a", low), ("b", high))
    ]
    told = choice(tables, Aim("dice"), OPTIONS)
    assert told["cross_validated"]["mean"] == 0.0
    assert told["cross_validated"]["gain"]["mean"] == pytest.approx(-0.5)
    assert not told["taken"]
    both = [_table(name, tp={low: 10, DEFAULT: 5}, predicted={low: 10, DEFAULT: 10}) for name in "ab"]
    told = choice(both, Aim("dice"), OPTIONS)
    assert told["taken"]
    assert (told["threshold"], told["confidence"]) == (0.2, 0.0)
    assert told["without"]["mean"] == pytest.approx(0.5)
    assert told["with"]["mean"] == told["cross_validated"]["mean"] == 1.0
    assert told["cross_validated"]["chosen"] == {"a": [0.2, 0.0], "b": [0.2, 0.0]}


def test_a_single_case_chooses_nothing_for_dice() -> None:
    low = (_near(0.2), 0)
    told = choice([_table(tp={low: 10}, predicted={low: 10})], Aim("dice"), OPTIONS)
    assert not told["taken"]
    assert "single case" in told["reason"]


def test_recall_tells_its_false_lesions_and_needs_lesions() -> None:
    low = (_near(0.2), 0)
    tables = [_table("a", lesions=4, detected={low: 3}, true={low: 3}, false={low: 1}), _table("b", lesions=0)]
    told = choice(tables, Aim("recall", 0.5), OPTIONS)
    assert told["taken"]
    assert told["with"]["mean"] == 0.75
    assert told["with"]["false_per_scan"] == 0.5
    # Of lesions too small to count there is no recall.
    assert choice([_table(lesions=0)], Aim("recall", 1.0), OPTIONS)["reason"] == "no case has a figure"


@pytest.mark.parametrize("aim", ["dice", "lesion_f1", "recall"])
def test_of_cases_without_the_structure_nothing_is_chosen(aim: str) -> None:
    """A threshold at which nothing is marked has a Dice of 1 in each, and would be what lesions are lost by."""
    strict = {(t, 0): 0 if THRESHOLDS[t] > 0.7 else 5 for t in range(len(THRESHOLDS))}
    tables = [_table(name, voxels=0, lesions=0, predicted=strict, false=strict) for name in "abc"]
    assert choice(tables, Aim(aim), OPTIONS) == {"taken": False, "reason": NOWHERE}


def _exhaustive(tables: list[CaseTable], most: float, cost: float) -> list[tuple[int, int]]:
    """Candidates of the highest recall with at most so many false lesions a scan, and of these of the highest Dice,
    one by one."""
    rows: list[tuple[float, float, tuple[int, int]]] = []
    dice: dict[tuple[int, int], float] = {}
    for at in np.ndindex(*SHAPE):
        each = []
        for table in tables:
            total = int(table.counts["predicted"][at]) + table.voxels
            each.append(2 * int(table.counts["tp"][at]) / total if total else 1.0)
        dice[at] = math.fsum(each) / len(each)
    least = max(dice[DEFAULT], max(dice.values()) / 2) - cost
    for at in np.ndindex(*SHAPE):
        false = sum(int(table.counts["false"][at]) for table in tables)
        found = sum(int(table.counts["detected"][at]) for table in tables)
        if false <= most * len(tables) and dice[at] >= least - 1e-12:
            rows.append((found, dice[at], at))
    best = max((row[0] for row in rows), default=None)
    highest = max((row[1] for row in rows if row[0] == best), default=0.0)
    return [at for found, of, at in rows if found == best and of >= highest - 1e-12]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sampled_from([0.05, 1.0]))
def test_recall_at_so_many_false_lesions_is_brute_forces(seed: int, most: float, cost: float) -> None:
    random = np.random.default_rng(seed)
    tables = []
    for name in "abc"[: random.integers(1, 4)]:
        voxels, lesions = int(random.integers(1, 30)), int(random.integers(1, 6))
        counts = {key: random.integers(0, 6, SHAPE) for key in COUNTS}
        counts["tp"] = np.minimum(random.integers(0, 30, SHAPE), voxels)
        counts["predicted"] = counts["tp"] + random.integers(0, 10, SHAPE)
        counts["detected"] = np.minimum(counts["detected"], lesions)
        tables.append(CaseTable(name, counts, voxels, lesions))
    found, wanted = choose(tables, Aim("recall", most, dice_cost=cost), OPTIONS), _exhaustive(tables, most, cost)
    assert found in wanted if wanted else found is None


@given(st.integers(0, 10_000), st.sampled_from(["one", "zero", "nan"]), st.sampled_from([0.0, 0.0015]))
def test_figures_are_those_of_the_rows(seed: int, empty: str, min_ml: float) -> None:
    random = np.random.default_rng(seed)
    scores = np.where(random.random((9, 3, 3)) < 0.3, random.random((9, 3, 3)), 0.0)
    scores *= random.random() < 0.8  # else nothing is predicted
    reference = random.random((9, 3, 3)) < random.choice([0.0, 0.02, 0.1, 0.3])
    options = MetricOptions(empty=empty, distances=False, lesion_min_ml=min_ml)
    counts = {key: np.zeros(SHAPE, np.int64) for key in COUNTS}
    picked = (2, 10, 22)
    for row in picked:
        found = detections(scores, THRESHOLDS[row], reference, 0.001, options)
        for key, numbers in found.at(CONFIDENCES).items():
            counts[key][row] = numbers
    table = CaseTable("x", counts, int(reference.sum()), len(found.reference_peaks))
    for row in picked:
        labels = (scores > THRESHOLDS[row]).astype(np.uint8)
        wanted = case_rows("x", labels, reference.astype(np.uint8), (1, 1, 1), {"a": 1}, options=options)[0]
        for aim in ("dice", "lesion_f1"):
            told = figures(table, aim, options)[row, 0]
            assert told == pytest.approx(wanted[aim], rel=1e-12, nan_ok=True), aim


def test_cases_without_a_figure_have_no_share() -> None:
    table = _table(voxels=0, lesions=0)
    assert math.isnan(figures(table, "dice", MetricOptions(empty="nan"))[0, 0])
    assert choose([table], Aim("dice"), MetricOptions(empty="nan")) is None
