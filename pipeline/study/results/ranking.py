"""Which loss is best over all settings: ranks, Friedman's test, pairs by Wilcoxon and Holm, robustness.

A *block* is a setting under which every loss was tried: network, patch, learning rate, seed and whatever else is an
axis besides the loss. Losses are ranked within each block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from rarevox.pipeline.evaluation.comparison.stats import DIGITS, holm
from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.signed_rank import exact_signed_rank
from rarevox.pipeline.study.results.trained import earned

LEVEL = 0.05
"""Of the tests."""


@dataclass(frozen=True)
class Blocks:
    """The figure of every loss under every setting.

    Attributes:
        losses: the columns.
        settings: what each row is, role → label.
        values: (B, L), without NaN.
        left_out: settings in which some loss has no figure, or failed for another reason than its own.
    """

    losses: tuple[str, ...]
    settings: tuple[Mapping[str, str], ...]
    values: npt.NDArray[np.float64]
    left_out: int


def blocks_of(outcomes: Sequence[Outcome], losses: Sequence[str], figure: Callable[[Outcome], float]) -> Blocks:
    """The complete blocks of a study.

    Args:
        outcomes: the cells.
        losses: labels of the axis of losses.
        figure: of a cell; NaN leaves its block out.
    """
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for one in outcomes:
        key = tuple((role, label) for role, label in one.labels.items() if role != "loss")
        found.setdefault(key, {})[one.label("loss")] = figure(one)
    whole = {
        key: [row[loss] for loss in losses]
        for key, row in found.items()
        if all(math.isfinite(row.get(loss, math.nan)) for loss in losses)
    }
    values = np.array(list(whole.values()), float).reshape(len(whole), len(losses))
    return Blocks(tuple(losses), tuple(dict(key) for key in whole), values, len(found) - len(whole))


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks within each row, 1 the highest; ties share the mean of their ranks.

    >>> ranks(np.array([[0.7, 0.7, 0.1], [0.1, 0.2, 0.3]])).tolist()
    [[1.5, 1.5, 3.0], [3.0, 2.0, 1.0]]
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.round(values, DIGITS), axis=1), float)


def friedman(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Friedman's χ² over the rows, corrected for ties, and its p-value.

    χ² = (L − 1) Σₗ (Rₗ − B (L + 1) / 2)² / Σ_b Σₗ (r_bl − (L + 1) / 2)², r the ranks and Rₗ their sums, with L − 1
    degrees of freedom. NaN with fewer than three losses or two blocks; (0, 1) where all are equal throughout.

    Source: Friedman, The use of ranks to avoid the assumption of normality, JASA 32, 1937; with ties: Conover,
    Practical nonparametric statistics, 1999.

    >>> statistic, p = friedman(np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1.0]]))
    >>> round(statistic, 6), round(p, 6)
    (6.0, 0.049787)
    """
    from scipy.stats import chi2

    blocks, losses = values.shape
    if losses < 3 or blocks < 2:
        return math.nan, math.nan
    centred = ranks(values) - (losses + 1) / 2
    spread = float((centred**2).sum())
    if spread == 0:
        return 0.0, 1.0
    statistic = (losses - 1) * float((centred.sum(axis=0) ** 2).sum()) / spread
    return statistic, float(chi2.sf(statistic, losses - 1))


def critical_difference(losses: int, blocks: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of average ranks: q √(L (L + 1) / (6 B)), q that of the studentised range over √2.

    Source: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006 (table 5: q = 2.569 for
    four at 0.05).

    >>> round(critical_difference(4, 10) / (4 * 5 / 60) ** 0.5, 3)
    2.569
    """
    from scipy.stats import studentized_range

    if losses < 2 or blocks < 1:
        return math.nan
    q = float(studentized_range.ppf(1 - level, losses, np.inf)) / math.sqrt(2)
    return q * math.sqrt(losses * (losses + 1) / (6 * blocks))


@dataclass(frozen=True)
class Pair:
    """Two losses over all blocks: how often each is better, the median difference, Wilcoxon's p and Holm's."""

    first: str
    second: str
    first_better: int
    equal: int
    second_better: int
    median_difference: float
    p: float
    p_holm: float = math.nan


@dataclass(frozen=True)
class Ranking:
    """Losses over the blocks of a study.

    Attributes:
        losses: the best average rank first.
        average_ranks: of each.
        blocks: how many settings were ranked, and ``left_out`` how many were not.
        statistic: Friedman's χ², with its ``p``.
        critical_difference: Nemenyi's.
        pairs: every pair, first the loss with the better average rank.
        groups: runs of losses, by average rank, no two of which the pairwise tests tell apart.
    """

    losses: tuple[str, ...]
    average_ranks: tuple[float, ...]
    blocks: int
    left_out: int
    statistic: float
    p: float
    critical_difference: float
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[str, ...], ...]


def ranking(blocks: Blocks) -> Ranking | None:
    """Rank the losses, test all at once, then in pairs; None without two losses or any complete block.

    The pairs are judged by Wilcoxon's signed-rank test with Holm's correction and not by Nemenyi's: whether two losses
    are told apart should not depend on which others the study has, and how far apart they are in a block counts too
    (Benavoli, Corani & Mangili, Should we really use post-hoc tests based on mean-ranks?, JMLR 17, 2016). Nemenyi's
    critical difference is given beside it, as a scale of the ranks. Pairs are told apart only where Friedman's test
    rejects that all are alike.
    """
    if len(blocks.losses) < 2 or not len(blocks.values):
        return None
    average = ranks(blocks.values).mean(axis=0)
    order = sorted(range(len(average)), key=lambda i: (round(float(average[i]), DIGITS), i))
    statistic, p = friedman(blocks.values)
    pairs = [_pair(blocks, a, b) for a, b in combinations(order, 2)]
    corrected = holm([pair.p for pair in pairs])
    pairs = [Pair(**vars(pair) | {"p_holm": p_holm}) for pair, p_holm in zip(pairs, corrected, strict=True)]
    losses = tuple(blocks.losses[i] for i in order)
    apart = {frozenset((one.first, one.second)) for one in pairs if one.p_holm < LEVEL and not p >= LEVEL}
    return Ranking(
        losses=losses,
        average_ranks=tuple(float(average[i]) for i in order),
        blocks=len(blocks.values),
        left_out=blocks.left_out,
        statistic=statistic,
        p=p,
        critical_difference=critical_difference(len(losses), len(blocks.values)),
        pairs=tuple(pairs),
        groups=tuple(groups(losses, apart)),
    )


def _pair(blocks: Blocks, a: int, b: int) -> Pair:
    differences = np.round(blocks.values[:, a] - blocks.values[:, b], DIGITS)
    return Pair(
        blocks.losses[a],
        blocks.losses[b],
        first_better=int((differences > 0).sum()),
        equal=int((differences == 0).sum()),
        second_better=int((differences < 0).sum()),
        median_difference=float(np.median(differences)),
        p=exact_signed_rank(differences),
    )


def groups(ordered: Sequence[str], apart: set[frozenset[str]]) -> list[tuple[str, ...]]:
    """The longest runs of two or more in which no pair is told apart; none lies within another.

    >>> groups("abcd", {frozenset("ac"), frozenset("ad"), frozenset("bd")})
    [('a', 'b'), ('b', 'c'), ('c', 'd')]
    >>> groups("abc", set())
    [('a', 'b', 'c')]
    """
    runs: list[tuple[str, ...]] = []
    end = 0
    for start in range(len(ordered)):
        stop = start + 1
        while stop < len(ordered) and not any(frozenset((one, ordered[stop])) in apart for one in ordered[start:stop]):
            stop += 1
        if stop - start > 1 and stop > end:
            runs.append(tuple(ordered[start:stop]))
            end = stop
    return runs


def robustness(outcomes: Sequence[Outcome], losses: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of each loss: in how many cells it comes above half of the best, and of how many that have a Dice.

    The best is that of any loss on the same network (and under the same imbalance), since networks differ in what they
    can reach. A cell that is not ahead of marking every voxel is above nothing
    (:func:`rarevox.pipeline.study.results.trained.earned`).
    """
    best: dict[tuple[str, str], float] = {}
    for one in outcomes:
        if math.isfinite(one.dice):
            place = (one.label("network"), one.label("imbalance"))
            best[place] = max(best.get(place, 0.0), earned(one))
    counted: dict[str, tuple[int, int]] = {}
    for loss in losses:
        own = [one for one in outcomes if one.label("loss") == loss and math.isfinite(one.dice)]
        above = sum(earned(one) > best[one.label("network"), one.label("imbalance")] / 2 for one in own)
        counted[loss] = (above, len(own))
    return counted
