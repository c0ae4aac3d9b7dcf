"""The arithmetic of a comparison: paired bootstrap intervals, signed-rank tests and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.comparison.load import Paired
from rarevox.pipeline.evaluation.metrics.aggregate import bootstrap_means, interval
from rarevox.pipeline.evaluation.metrics.options import MetricOptions

DIGITS = 12
"""Differences are rounded to so many decimals, so that 0.9 − 0.8 and 0.8 − 0.7 are a tie and not an order of noise."""
_LOWER = ("false_positive_ml", "fp", "fn")
_NEITHER = ("volume_ml", "reference_ml", "volume_error_ml", "tp")


def better(metric: str) -> str | None:
    """Whether ``higher`` or ``lower`` figures of a column are better; None where neither is by itself.

    >>> better("dice"), better("hd95_mm"), better("surface_dice_1mm"), better("volume_ml")
    ('higher', 'lower', 'higher', None)
    """
    if metric in _NEITHER or (metric.startswith("lesions_")):
        return None
    lower = metric in _LOWER or (metric.endswith("_mm") and not metric.startswith("surface_dice"))
    return "lower" if lower else "higher"


def signed_rank(differences: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test of paired differences, by SciPy.

    Differences of 0 are dropped as Wilcoxon did; without any other, p is 1; without any difference at all, NaN. SciPy
    takes the exact distribution for few cases without ties, the normal approximation for many.

    Source: Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945.

    Example, five differences of one sign, 2 of the 2⁵ signings are as extreme:
        >>> signed_rank(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
        0.0625
    """
    from scipy.stats import wilcoxon

    differences = np.round(differences[np.isfinite(differences)], DIGITS)
    if not len(differences):
        return math.nan
    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of one false finding or more in the family stays under the level.

    With the m p-values in rising order, corrected pᵢ = maxⱼ≤ᵢ min(1, (m − j + 1) pⱼ). NaN (nothing was tested) stays
    NaN and does not count in m.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [math.nan] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if math.isfinite(p))
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        corrected[index] = highest
    return corrected


def compare_values(paired: Paired, metric: str = "dice", options: MetricOptions | None = None) -> dict[str, Any]:
    """Means, ranks and all pairwise differences.

    Every figure is over the cases for which all evaluations have one. The bootstrap draws whole subjects, the same ones
    for all evaluations and structures, so an interval of a difference is that of paired figures, and the intervals of
    the means are those of ``metrics.json`` where no case was left out. ``difference`` is second − first. The family of
    Holm's correction is all pairs × structures.

    Args:
        paired: of :func:`rarevox.pipeline.evaluation.comparison.load.pair`.
        metric: the column, which decides what is better.
        options: ``resamples`` and ``seed``.

    Returns:
        ``evaluations`` (the best first: ``name``, ``rank``, ``mean`` and ``ci95`` over structures, ``structures``),
        ``pairs`` and ``overall`` (pairs, over structures).
    """
    options, values = options or MetricOptions(), paired.values
    models, cases, structures = values.shape
    table = values.transpose(1, 0, 2).reshape(cases, models * structures)
    draws = bootstrap_means(table, options, paired.subjects).reshape(-1, models, structures)
    measured = np.isfinite(values).any(axis=(0, 1))
    means = np.full((models, structures), math.nan)
    means[:, measured] = np.nanmean(values[:, :, measured], axis=1)
    counted = np.array([paired.mean_over is None or name in paired.mean_over for name in paired.structures])
    overall, overall_draws = _over_structures(means[:, counted], draws[:, :, counted])
    boards = [
        {
            "name": name,
            "mean": float(overall[m]),
            "ci95": interval(overall_draws[:, m]),
            "structures": {
                structure: {
                    "mean": float(means[m, s]),
                    "ci95": interval(draws[:, m, s]),
                    "n": int(np.isfinite(values[m, :, s]).sum()),
                }
                for s, structure in enumerate(paired.structures)
            },
        }
        for m, name in enumerate(paired.names)
    ]
    pairs, joint = _pairs(paired, metric, draws), []
    for a, b in combinations(range(models), 2):
        spread = interval(overall_draws[:, b] - overall_draws[:, a])
        difference = float(overall[b] - overall[a])
        joint.append({"first": paired.names[a], "second": paired.names[b], "difference": difference, "ci95": spread})
    return {"evaluations": _ranked(boards, better(metric)), "pairs": pairs, "overall": joint}


def _over_structures(means: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the structures that were measured, of the means (models, S) and of the draws (R, models, S)."""
    known = np.isfinite(means).all(axis=0)
    if not known.any():
        return np.full(len(means), math.nan), np.full(draws.shape[:2], math.nan)
    return means[:, known].mean(axis=1), draws[:, :, known].mean(axis=2)


def _pairs(paired: Paired, metric: str, draws: np.ndarray) -> list[dict[str, Any]]:
    """Every pair of evaluations, structure by structure."""
    rows: list[dict[str, Any]] = []
    sign = -1.0 if better(metric) == "lower" else 1.0
    for a, b in combinations(range(len(paired.names)), 2):
        for s, structure in enumerate(paired.structures):
            every = paired.values[b, :, s] - paired.values[a, :, s]
            measured = np.isfinite(every)
            differences = np.round(every[measured], DIGITS)
            whose = [name for name, known in zip(paired.subjects or paired.cases, measured, strict=True) if known]
            rows.append(
                {
                    "first": paired.names[a],
                    "second": paired.names[b],
                    "structure": structure,
                    "n": len(differences),
                    "difference": float(differences.mean()) if len(differences) else math.nan,
                    "ci95": interval(draws[:, b, s] - draws[:, a, s]),
                    "median_difference": float(np.median(differences)) if len(differences) else math.nan,
                    "first_better": int((sign * differences < 0).sum()),
                    "second_better": int((sign * differences > 0).sum()),
                    "equal": int((differences == 0).sum()),
                    "p": signed_rank(np.round(subject_means(differences, whose), DIGITS)),
                }
            )
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def subject_means(values: np.ndarray, subjects: Sequence[str]) -> np.ndarray:
    """The mean of each subject's figures: a test that takes them as independent may count a subject once.

    >>> subject_means(np.array([1.0, 2.0, 4.0]), ["a", "b", "a"]).tolist()
    [2.5, 2.0]
    """
    names = dict.fromkeys(subjects)
    own = np.array(subjects, dtype=object)
    return np.array([values[own == name].mean() for name in names])


def _ranked(boards: list[dict[str, Any]], direction: str | None) -> list[dict[str, Any]]:
    """The best first, with ranks; equal means share a rank. Without a direction there are no ranks."""
    if direction is None:
        return [board | {"rank": None} for board in boards]
    sign = -1.0 if direction == "higher" else 1.0

    def key(board: dict[str, Any]) -> float:
        return sign * round(board["mean"], DIGITS) if math.isfinite(board["mean"]) else math.inf

    return [board | {"rank": 1 + sum(key(other) < key(board) for other in boards)} for board in sorted(boards, key=key)]
