"""Splits: proportions, strata, subjects kept together, and the same result for any order of the cases."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.split import SplitItem, joined_subjects, split_cases


def items(count: int, per_subject: int = 1) -> list[SplitItem]:
    return [
        SplitItem(
            f"c{n:03}", f"s{n // per_subject:03}", float(n * 7 % count), frozenset({1}) if n % 4 else frozenset({1, 2})
        )
        for n in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    per_subject=st.integers(1, 4),
    holdout=st.floats(0, 0.9),
    folds=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_every_case_is_dealt_once_and_no_subject_twice(
    count: int, per_subject: int, holdout: float, folds: int, seed: int
) -> None:
    cases = items(count, per_subject)
    split = split_cases(cases, holdout=holdout, folds=folds, seed=seed)
    assert sorted([*split.test, *split.fold]) == sorted(item.case for item in cases)
    side = dict.fromkeys(split.test, "test") | {name: str(fold) for name, fold in split.fold.items()}
    sides: dict[str, set[str]] = {}
    for item in cases:
        sides.setdefault(item.subject, set()).add(side[item.case])
    assert all(len(found) == 1 for found in sides.values())
    assert set(split.fold.values()) == set(range(split.folds))  # no fold is empty


@pytest.mark.parametrize(
    ("count", "holdout", "expected"), [(195, 0.1, 20), (20, 0.1, 2), (4, 0.1, 1), (2, 0.9, 1), (1, 0.5, 0), (9, 0.0, 0)]
)
def test_held_out_share(count: int, holdout: float, expected: int) -> None:
    assert len(split_cases(items(count), holdout=holdout).test) == expected


def test_folds_differ_by_one_case_at_most() -> None:
    sizes = Counter(split_cases(items(195), holdout=0.1, folds=5).fold.values())
    assert sorted(sizes.values()) == [35] * 5  # 195 − 20 held out = 175 = 5 × 35


def test_fewer_subjects_than_folds() -> None:
    split = split_cases(items(4), holdout=0.25, folds=5)
    assert split.folds == 3
    assert sorted(split.fold.values()) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_cases_does_not_matter(seed: int) -> None:
    cases = items(37, 2)
    shuffled = cases.copy()
    random.Random(seed).shuffle(shuffled)
    assert split_cases(cases, seed=seed) == split_cases(shuffled, seed=seed)


def test_seeds_differ() -> None:
    assert len({split_cases(items(40), seed=seed).test for seed in range(6)}) > 1


@pytest.mark.parametrize("seed", range(10))
def test_parts_cover_the_range_of_volumes(seed: int) -> None:
    # 100 volumes 0 … 99 in one stratum, 10 held out: one from each run of ten, so the k-th smallest is within run k.
    cases = [SplitItem(f"c{n:03}", f"c{n:03}", float(n), frozenset({1})) for n in range(100)]
    split = split_cases(cases, holdout=0.1, folds=5, seed=seed)
    held = sorted(int(name[1:]) for name in split.test)
    assert [volume // 10 for volume in held] == list(range(10))
    means = [np.mean([int(name[1:]) for name, fold in split.fold.items() if fold == number]) for number in range(5)]
    # Each fold takes one of every five neighbours: means differ by less than the width of such a run (5 of 90, +1 gap).
    assert max(means) - min(means) < 6


@pytest.mark.parametrize("seed", range(10))
def test_a_rare_structure_is_spread_over_the_folds(seed: int) -> None:
    # 10 of 60 cases hold structure 2; sorted together they fill runs of five, so each fold gets 1 to 3 of them.
    cases = [SplitItem(f"c{n:02}", f"c{n:02}", float(n), frozenset({2} if n % 6 == 0 else {1})) for n in range(60)]
    split = split_cases(cases, holdout=0.0, folds=5, seed=seed)
    rare = Counter(fold for name, fold in split.fold.items() if int(name[1:]) % 6 == 0)
    assert [rare[fold] for fold in range(5)] == [2] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 1.0}, "--holdout is 1;"),
        ({"holdout": -0.1}, "--holdout"),
        ({"folds": 0}, "--folds is 0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        split_cases(items(5), **options)
    with pytest.raises(RequestError, match="no cases"):
        split_cases([])


def test_twins_join_subjects_transitively() -> None:
    subjects = {"a": "s1", "b": "s2", "c": "s3", "d": "s4", "e": "s3"}
    joined = joined_subjects(subjects, [("a", "b"), ("b", "c"), ("d", "d")])
    assert joined["a"] == joined["b"] == joined["c"] == joined["e"] != joined["d"]
