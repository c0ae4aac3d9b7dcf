"""The arithmetic of a comparison: Holm and differences by hand, the signed-rank test against SciPy, the bootstrap."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import bootstrap, rankdata, wilcoxon

from rarevox.pipeline.evaluation.comparison.load import Paired
from rarevox.pipeline.evaluation.comparison.stats import better, compare_values, holm, signed_rank
from rarevox.pipeline.evaluation.metrics.options import MetricOptions


def _paired(values: np.ndarray, names: tuple[str, ...] = ("a", "b", "c")) -> Paired:
    models, cases, structures = values.shape
    labels = tuple(f"s{i}" for i in range(structures))
    return Paired(names[:models], tuple(f"case{i:03}" for i in range(cases)), labels, values, (), ())


def test_holm_by_hand() -> None:
    # In rising order 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last may not fall: 0.06.
    assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    # 3 · 0.5 is over 1, and the larger ones stay at 1.
    assert_allclose(holm([0.5, 0.9, 0.6]), [1, 1, 1])
    assert holm([]) == []
    with_nothing = holm([math.nan, 0.02, 0.5])  # two tests, not three: 0.04, 0.5
    assert math.isnan(with_nothing[0])
    assert_allclose(with_nothing[1:], [0.04, 0.5])


def test_holm_keeps_the_order_and_lies_between_the_p_values_and_bonferroni() -> None:
    p = np.random.default_rng(0).random(30) ** 3
    corrected = np.array(holm(list(p)))
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, 30 * p) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


def test_signed_rank_by_enumeration() -> None:
    # All 2⁶ signings of the ranks 1 … 6 are equally likely under the null: how many are as far from their middle?
    differences = np.array([0.05, -0.01, 0.2, 0.11, 0.07, -0.03])
    ranks = rankdata(abs(differences))
    seen = abs((ranks * np.sign(differences)).sum())
    sums = [abs((ranks * signs).sum()) for signs in product((-1, 1), repeat=6)]
    assert signed_rank(differences) == pytest.approx(np.mean([one >= seen for one in sums]))


@pytest.mark.parametrize("n", [5, 20, 60])
def test_signed_rank_equals_scipy_on_two_samples(n: int) -> None:
    rng = np.random.default_rng(n)
    first, second = rng.beta(8, 2, n), rng.beta(8.5, 2, n)
    assert signed_rank(second - first) == pytest.approx(wilcoxon(second, first).pvalue)


def test_signed_rank_of_ties_and_nothing() -> None:
    assert signed_rank(np.zeros(4)) == 1.0
    assert math.isnan(signed_rank(np.array([math.nan])))
    # 0.9 − 0.8 and 0.8 − 0.7 differ in the 16th digit; they are ties, so the order of the two must not decide.
    near = np.array([0.9 - 0.8, -(0.8 - 0.7), 0.3, 0.2])
    assert near[0] != -near[1]
    assert signed_rank(near) == pytest.approx(wilcoxon([0.1, -0.1, 0.3, 0.2]).pvalue)


def test_differences_by_hand() -> None:
    # b − a = 0.1, 0.3, 0.0, −0.2, of mean 0.05 and median 0.05; the means are 0.5 and 0.55.
    values = np.array([[0.4, 0.2, 0.6, 0.8], [0.5, 0.5, 0.6, 0.6]])[:, :, None]
    result = compare_values(_paired(values))
    row = result["pairs"][0]
    assert_allclose([row["difference"], row["median_difference"]], [0.05, 0.05], atol=1e-12)
    assert (row["first_better"], row["equal"], row["second_better"], row["n"]) == (1, 1, 2, 4)
    assert [board["name"] for board in result["evaluations"]] == ["b", "a"]
    assert_allclose([board["mean"] for board in result["evaluations"]], [0.55, 0.5])
    assert [board["name"] for board in compare_values(_paired(values), "hd95_mm")["evaluations"]] == ["a", "b"]
    assert [board["rank"] for board in compare_values(_paired(values), "volume_ml")["evaluations"]] == [None, None]
    assert compare_values(_paired(values), "hd95_mm")["pairs"][0]["first_better"] == 2


def test_equal_evaluations_share_a_rank_and_have_no_difference() -> None:
    values = np.random.default_rng(0).random((1, 9, 2)).repeat(3, 0)
    result = compare_values(_paired(values))
    assert [board["rank"] for board in result["evaluations"]] == [1, 1, 1]
    assert all(row["ci95"] == [0, 0] and row["p_holm"] == 1 and row["equal"] == 9 for row in result["pairs"])


def test_swapping_two_evaluations_mirrors_everything() -> None:
    values = np.random.default_rng(1).random((2, 12, 2))
    here, there = (compare_values(_paired(v))["pairs"] for v in (values, values[::-1]))
    for one, other in zip(here, there, strict=True):
        assert_allclose(one["difference"], -other["difference"])
        assert_allclose(one["ci95"], [-bound for bound in other["ci95"][::-1]])
        assert (one["p"], one["first_better"]) == (other["p"], other["second_better"])


def test_interval_agrees_with_an_independent_bootstrap_and_uses_the_pairing() -> None:
    rng = np.random.default_rng(3)
    easy = rng.beta(5, 2, 40)  # cases differ far more than the two evaluations do
    values = np.stack([easy, easy + rng.normal(0.02, 0.02, 40)])[:, :, None]
    row = compare_values(_paired(values), options=MetricOptions(resamples=8000))["pairs"][0]
    theirs = bootstrap((values[1, :, 0] - values[0, :, 0],), np.mean, n_resamples=8000, method="percentile", rng=rng)
    assert_allclose(row["ci95"], theirs.confidence_interval, atol=4e-4)
    assert row["ci95"][1] - row["ci95"][0] < 0.1 * (np.quantile(easy, 0.975) - np.quantile(easy, 0.025))


def test_interval_covers_the_true_difference() -> None:
    # 25 differences of normal distribution around 0.02: the percentile interval is a little narrow, 93 % or so.
    rng, covered, options = np.random.default_rng(4), 0, MetricOptions(resamples=400)
    for _ in range(300):
        values = np.stack([np.zeros(25), rng.normal(0.02, 0.05, 25)])[:, :, None]
        low, high = compare_values(_paired(values), options=options)["pairs"][0]["ci95"]
        covered += low <= 0.02 <= high
    assert 0.88 <= covered / 300 <= 0.97


def test_the_family_of_holm_is_all_pairs_and_structures() -> None:
    values = np.random.default_rng(5).random((3, 15, 2))
    rows = compare_values(_paired(values))["pairs"]
    assert len(rows) == 6
    assert_allclose([row["p_holm"] for row in rows], holm([row["p"] for row in rows]))


def test_structures_without_figures_are_not_in_the_mean() -> None:
    values = np.random.default_rng(6).random((2, 6, 2))
    values[:, :, 1] = math.nan
    result = compare_values(_paired(values))
    board = next(board for board in result["evaluations"] if board["name"] == "a")
    assert board["mean"] == pytest.approx(values[0, :, 0].mean())
    assert board["structures"]["s1"]["n"] == 0
    assert math.isnan(result["pairs"][1]["p_holm"])
    assert_allclose(result["overall"][0]["ci95"], result["pairs"][0]["ci95"])


def test_visits_of_a_subject_count_once() -> None:
    """Six subjects scanned six times: p and the interval are those of six scans, not of 36."""
    values = np.random.default_rng(0).random((2, 6, 1)) + np.array([0.0, 0.3])[:, None, None]
    once = compare_values(_paired(values))["pairs"][0]
    repeated = _paired(np.repeat(values, 6, axis=1))
    visits = compare_values(replace(repeated, subjects=tuple(f"s{n // 6}" for n in range(36))))["pairs"][0]
    assert (visits["n"], visits["p"]) == (36, once["p"])
    assert_allclose(visits["ci95"], once["ci95"], rtol=1e-12)
    assert compare_values(repeated)["pairs"][0]["p"] < once["p"] / 10  # as if they were 36 subjects


def test_a_mean_over_structures_of_which_one_has_no_spread_has_none() -> None:
    values = np.random.default_rng(1).random((2, 6, 2))
    values[:, 1:, 1] = math.nan  # one case has a figure: it is in the mean
    result = compare_values(_paired(values))
    board = next(board for board in result["evaluations"] if board["name"] == "a")
    assert board["mean"] == pytest.approx((values[0, :, 0].mean() + values[0, 0, 1]) / 2)
    assert np.isnan(board["ci95"]).all() and np.isnan(result["overall"][0]["ci95"]).all()


def test_what_is_better() -> None:
    assert [better(metric) for metric in ("lesion_f1", "surface_dice_0.5mm")] == ["higher", "higher"]
    assert [better(metric) for metric in ("assd_mm", "false_positive_ml", "fn")] == ["lower"] * 3
    assert [better(metric) for metric in ("volume_error_ml", "lesions_predicted", "tp")] == [None] * 3
