"""Ranks, tests and robustness against hand-derived cases, SciPy and published tables."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.ranking import (
    blocks_of,
    critical_difference,
    friedman,
    groups,
    ranking,
    ranks,
    robustness,
)


def outcome(loss: str, lr: str, dice: float, network: str = "n") -> Outcome:
    return Outcome(f"{network}{loss}{lr}", {"network": network, "loss": loss, "lr": lr}, state="done", dice=dice)


def dice_of(one: Outcome) -> float:
    return one.dice


def study(values: np.ndarray, losses: str = "abcd") -> list[Outcome]:
    return [outcome(loss, str(b), values[b, k]) for b in range(len(values)) for k, loss in enumerate(losses)]


def test_friedman_agrees_with_scipy_with_and_without_ties() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.random((9, 4)), rng.integers(0, 3, (12, 5)).astype(float), rng.random((6, 3))):
        statistic, p = friedman(values)
        theirs = friedmanchisquare(*values.T)
        # some hundred sums and products of ranks below 100 in each of the two ways
        assert statistic == pytest.approx(theirs.statistic, rel=1e-12)
        assert p == pytest.approx(theirs.pvalue, rel=1e-10)


def test_friedman_of_nothing_to_rank() -> None:
    assert friedman(np.full((5, 3), 0.4)) == (0.0, 1.0)
    assert math.isnan(friedman(np.random.default_rng(0).random((5, 2)))[1])
    assert math.isnan(friedman(np.ones((1, 4)))[1])


@pytest.mark.parametrize(("losses", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_nemenyis_q_is_that_of_demsars_table_5(losses: int, q: float) -> None:
    blocks = 18
    ours = critical_difference(losses, blocks) / math.sqrt(losses * (losses + 1) / (6 * blocks))
    # Two of the table's figures end one unit of their last place away from the integral itself.
    assert ours == pytest.approx(q, abs=0.0015)


def test_ranks_are_within_a_row_and_noise_is_a_tie() -> None:
    assert ranks(np.array([[0.3, 0.1 + 0.2, 0.9]])).tolist() == [[2.5, 2.5, 1.0]]


def test_a_loss_that_always_wins_is_told_apart_from_the_others() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(0.3, 0.4, (12, 4))
    values[:, 2] += 0.5
    found = ranking(blocks_of(study(values), "abcd", dice_of))
    assert found is not None
    assert found.losses[0] == "c" and found.average_ranks[0] == 1.0
    assert found.p < 0.001
    # Twelve differences of one sign: 2 / 2¹² exactly; times six, the number of pairs, for the smallest.
    own = [pair for pair in found.pairs if pair.first == "c"]
    assert [pair.p for pair in own] == [2 / 2**12] * 3
    assert max(pair.p_holm for pair in own) <= 6 * 2 / 2**12
    assert all("c" not in group for group in found.groups)


def test_losses_that_are_alike_stay_together() -> None:
    found = ranking(blocks_of(study(np.full((6, 3), 0.5), "abc"), "abc", dice_of))
    assert found is not None
    assert found.average_ranks == (2.0, 2.0, 2.0)
    assert found.groups == (("a", "b", "c"),)
    assert all(pair.p == 1 for pair in found.pairs)


def test_a_setting_that_lacks_a_loss_is_left_out_and_counted() -> None:
    cells = study(np.random.default_rng(0).random((4, 3)), "abc")
    cells[4] = outcome("b", "1", math.nan)
    blocks = blocks_of(cells[:-1], "abc", dice_of)
    assert len(blocks.values) == 2
    assert blocks.left_out == 2


def test_nothing_to_rank_is_no_ranking() -> None:
    assert ranking(blocks_of([], "ab", dice_of)) is None
    assert ranking(blocks_of(study(np.ones((3, 1)), "a"), "a", dice_of)) is None


def test_groups_need_not_be_transitive() -> None:
    assert groups("abc", {frozenset("ac")}) == [("a", "b"), ("b", "c")]
    assert groups("abc", {frozenset("ab"), frozenset("bc"), frozenset("ac")}) == []


def test_who_is_not_ahead_of_marking_every_voxel_is_above_nothing() -> None:
    """Marking every voxel has 0.55: of 0.58, 0.6 and 0.8 only the last two are ahead by 0.05, above half of 0.8."""
    cells = [replace(outcome("a", str(k), dice), constant=0.55) for k, dice in enumerate((0.58, 0.601, 0.8))]
    assert robustness(cells, "a") == {"a": (2, 3)}
    assert robustness(cells[:1], "a") == {"a": (0, 1)}


def test_robustness_counts_against_the_best_of_the_same_network() -> None:
    cells = [
        outcome("a", "1", 0.8), outcome("a", "2", 0.4), outcome("b", "1", 0.41), outcome("b", "2", math.nan),
        outcome("a", "1", 0.1, "m"), outcome("b", "1", 0.06, "m"), outcome("b", "2", 0.02, "m"),
    ]  # fmt: skip
    # On n the best is 0.8: 0.4 is not above its half, 0.41 is. On m the best is 0.1: 0.06 is above, 0.02 is not.
    assert robustness(cells, "ab") == {"a": (2, 3), "b": (2, 3)}
