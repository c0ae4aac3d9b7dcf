"""The exact signed-rank test against SciPy's enumeration of all signings, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from rarevox.pipeline.study.results.signed_rank import exact_signed_rank


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_all_signings_where_there_are_ties(seed: int) -> None:
    """SciPy tries all 2⁹ signings of so few differences; counts below 2⁵³ are exact, so only quotients are rounded."""
    differences = np.random.default_rng(seed).integers(-4, 7, 9) / 8
    known = differences[differences != 0]
    assert exact_signed_rank(differences) == pytest.approx(float(wilcoxon(known).pvalue), rel=4 * 2.0**-52)


def test_it_agrees_with_scipys_exact_distribution_without_ties() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, 40)
    # SciPy sums the chances of the 2⁴⁰ signings as floats: some hundred roundings.
    assert exact_signed_rank(differences) == pytest.approx(float(wilcoxon(differences).pvalue), rel=1000 * 2.0**-52)


def test_by_hand() -> None:
    """|d| = 1, 1, 2: ranks 1.5, 1.5, 3. Positive sum 4.5 of 6: 1.5 or less are {}, {1.5} and {1.5}, so 2 · 3 / 8."""
    assert exact_signed_rank(np.array([1.0, -1.0, 2.0])) == 0.75


def test_no_difference_and_none_at_all() -> None:
    assert exact_signed_rank(np.zeros(4)) == 1.0
    assert math.isnan(exact_signed_rank(np.array([np.nan])))


def test_the_order_of_the_two_does_not_matter() -> None:
    differences = np.random.default_rng(5).normal(0.3, 1, 18).round(1)
    assert exact_signed_rank(differences) == exact_signed_rank(-differences)


def test_many_differences_are_left_to_scipy() -> None:
    differences = np.random.default_rng(5).normal(0.1, 1, 80)
    assert exact_signed_rank(differences) == float(wilcoxon(differences.round(12)).pvalue)
