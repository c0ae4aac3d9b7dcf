"""Wilcoxon's signed-rank test, exact with ties too: median Dice of two decimals, and cells of 0, tie all the time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rarevox.pipeline.evaluation.comparison.stats import DIGITS, signed_rank

MOST = 60
"""Differences up to which the chances are counted; for more, SciPy's normal approximation is as good."""


def exact_signed_rank(differences: npt.NDArray[np.float64]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test of paired differences, ties or not.

    Without an effect every signing of the n ranks has the chance 2⁻ⁿ. How many signings have a sum of positive ranks is
    counted by adding rank after rank (twice the ranks, which are whole numbers with ties too), so that 60 differences
    take some thousand additions where trying all signings, as SciPy does with ties, doubles with each. Differences of 0
    are dropped as Wilcoxon did; without any other, p is 1; without any difference at all, NaN.

    Source: Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945.

    Five differences of one sign, 2 of the 2⁵ signings are as extreme:
        >>> exact_signed_rank(np.array([0.1, 0.1, 0.3, 0.4, 0.5]))
        0.0625
    """
    from scipy.stats import rankdata

    kept = np.round(differences[np.isfinite(differences)], DIGITS)
    kept = kept[kept != 0]
    if not 0 < len(kept) <= MOST:
        return signed_rank(differences)
    doubled = np.rint(2 * rankdata(np.abs(kept))).astype(int)
    total = int(doubled.sum())
    signings = np.zeros(total + 1)
    signings[0] = 1.0
    for rank in doubled:
        signings[rank:] += signings[:-rank].copy()
    positive = int(doubled[kept > 0].sum())
    extreme = min(positive, total - positive)
    return float(min(1.0, 2 * signings[: extreme + 1].sum() / 2.0 ** len(kept)))
