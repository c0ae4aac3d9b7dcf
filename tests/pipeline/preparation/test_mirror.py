"""When left and right may be exchanged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rarevox.pipeline.preparation.mirror import _agreement, sided, sided_cohort


def test_structures_named_by_side_are_sided() -> None:
    """Neither lies off the middle of the scan in one direction, but one is always to the right of the other."""
    shifts = [-30.0, 30.0] * 5  # fields of view that differ
    cases = [{"right kidney": 50.0 + s, "left kidney": -50.0 + s} for s in shifts]
    assert sided(cases) is not None
    near = [{"a": 5.0 + s, "b": -5.0 + s} for s in shifts]
    assert sided(near) == "a lies to the right of b in 10 of 10 cases"


def test_the_clearest_one_is_named() -> None:
    cases = [{"liver": 40.0, "spleen": -40.0 if n else 10.0} for n in range(10)]
    assert sided(cases) == "liver lies to the right of the middle in 10 of 10 cases"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_cases_say_nothing(count: int) -> None:
    """Five heads in a row come with probability 2/32 = 0.06, six with 2/64 = 0.03."""
    assert sided([{"liver": 40.0}] * count) is None
    assert sided([{"liver": 40.0}] * 6) is not None


def test_lesions_on_either_side_are_not_sided() -> None:
    generator = np.random.default_rng(0)
    alarms = sum(sided([{"lesion": x} for x in generator.normal(0, 20, 30)]) is not None for _ in range(200))
    assert alarms == 0  # 26 of 30 on one side: 2 in 10,000 for a fair coin


def test_cases_without_a_structure_do_not_count() -> None:
    assert sided([{"liver": 40.0}] * 6 + [{}] * 50) == "liver lies to the right of the middle in 6 of 6 cases"


def test_the_sign_test_is_scipys() -> None:
    for right, left in ((6, 0), (9, 3), (20, 20), (1, 7)):
        expected = stats.binomtest(right, right + left).pvalue
        assert _agreement([1.0] * right + [-1.0] * left)[1] == pytest.approx(expected)


def test_a_small_want_of_symmetry_is_no_side() -> None:
    cases = [{"ventricles": 0.01}] * 20
    assert sided(cases) is not None
    assert sided(cases, least=0.03) is None


def _cohort(folder: Path, offsets: dict[str, dict[str, float]], names: list[str], **subjects: str) -> Any:
    """A prepared dataset as far as its sides go: case → structure → mm to the right, in scans 100 mm wide."""
    values = {name: number for number, name in enumerate(names, start=1)}
    grid = {"orientation": "RAS", "size": [100, 90, 80], "spacing_mm": [1.0, 1.0, 1.0]}
    rows = [
        {"case": case, **grid, "right_mm": {str(values[name]): mm for name, mm in own.items()}}
        for case, own in offsets.items()
    ]
    (folder / "fingerprint.json").write_text(json.dumps({"per_case": rows}))
    labels = {"background": 0, **values}
    return SimpleNamespace(path=folder / "dataset.json", labels=labels, structures=tuple(names), subjects=subjects)


def test_scans_of_one_subject_are_one_voice(tmp_path: Path) -> None:
    six = {f"{who}_{time}": {"lesion": 20.0} for who in "abc" for time in (1, 2)}
    assert sided_cohort(_cohort(tmp_path, six, ["lesion"])) is not None
    assert sided_cohort(_cohort(tmp_path, six, ["lesion"], **{case: case[0] for case in six})) is None


def test_of_few_scans_names_and_the_order_of_structures_tell(tmp_path: Path) -> None:
    kidneys = {case: {"k1": -30.0 + shift, "k2": 30.0 + shift} for case, shift in (("a", 0.0), ("b", 9.0), ("c", -9.0))}
    assert sided_cohort(_cohort(tmp_path, kidneys, ["k1", "k2"])) == (
        "k1 lies to the left of k2 in all of 3 cases, too few to tell more"
    )
    assert sided_cohort(_cohort(tmp_path, {"a": kidneys["a"]}, ["k1", "k2"])) is None
    for name in ("left kidney", "kidney_R right", "LeftKidney", "lh"):
        assert sided_cohort(_cohort(tmp_path, {"a": {}}, [name])) == f"{name} has its side in its name"
    for name in ("bright", "leftover", "cleft"):
        assert sided_cohort(_cohort(tmp_path, {"a": {}}, [name])) is None
    either = {"a": {"k1": -30.0, "k2": 30.0}, "b": {"k1": 30.0, "k2": -30.0}}
    assert sided_cohort(_cohort(tmp_path, either, ["k1", "k2"])) is None
