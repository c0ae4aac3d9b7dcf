"""When left and right may be exchanged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rarevox.pipeline.preparation.mirror import _agreement, sided


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
