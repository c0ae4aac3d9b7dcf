"""The 95 % interval of the FROC score over resamples of the cases, exact for any number of lesions.

In a resample a case counts as often as it was drawn. Of all confidences those serve that keep no more false lesions
than are allowed; the largest share is reached at the lowest of them. That is bounded by the peak of the first false
lesion, in falling order, by which the false ones become too many: the reference lesions above it are those reached.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rarevox.pipeline.evaluation.metrics.aggregate import bootstrap_draws, interval
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import Detections

_BLOCK = 256
"""False lesions that are counted at a time, for all resamples in which there may be more."""


def score_interval(
    cases: Sequence[Detections], rates: Sequence[float], options: MetricOptions, subjects: Sequence[str] | None = None
) -> list[float]:
    """The central 95 % of the FROC score, percentile bootstrap over subjects; NaN below two or without a lesion.

    Args:
        cases: the lesions of each.
        rates: false lesions a scan at which the share counts, rising.
        options: ``resamples`` and ``seed``.
        subjects: of each case, whose cases are drawn together; None: each is of its own.
    """
    wanted = np.array([len(case.reference_peaks) for case in cases])
    if len(set(subjects or range(len(cases)))) < 2 or not wanted.sum():
        return [math.nan, math.nan]
    # The most scans that a resample has: its subjects may all be the one with the most.
    most = len(cases) if subjects is None else len(set(subjects)) * max(Counter(subjects).values())
    kept = math.floor(rates[-1] * most) + 1
    false_peaks, false_owner = _falling([_highest(case.false_peaks, kept) for case in cases])
    peaks, owner = _falling([case.reference_peaks for case in cases])
    scores = []
    for draws in bootstrap_draws(len(cases), options, subjects):
        limits = np.floor(np.multiply.outer(np.array(rates), draws.sum(1))).astype(np.int64)
        cuts = _cuts(false_peaks, false_owner, draws, limits)
        reached = sum(_above(cut, peaks, owner, draws) for cut in cuts)
        with np.errstate(invalid="ignore"):
            scores.append(reached / (draws @ wanted) / len(rates))
    return interval(np.concatenate(scores))


def _highest(peaks: np.ndarray, most: int) -> np.ndarray:
    """So many at most: where the case was drawn at all, no further one is ever kept."""
    return np.partition(peaks, len(peaks) - most)[-most:] if len(peaks) > most else peaks


def _falling(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All peaks, falling, and the case of each."""
    peaks = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(-peaks, kind="stable")
    return peaks[order], owner[order]


def _cuts(peaks: np.ndarray, owner: np.ndarray, draws: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The peak above which false lesions are as few as each limit, (limits, resamples), allows; 0 if all are kept."""
    cuts = np.zeros((len(limits), len(draws)))
    so_far, going = np.zeros(len(draws), np.int64), np.arange(len(draws))
    for start in range(0, len(peaks), _BLOCK):
        span = slice(start, start + _BLOCK)
        sums = so_far[going, None] + draws[np.ix_(going, owner[span])].cumsum(1)
        for cut, limit in zip(cuts, limits, strict=True):
            own = limit[going]
            beyond = (so_far[going] <= own) & (sums[:, -1] > own)
            cut[going[beyond]] = peaks[span][(sums[beyond] > own[beyond, None]).argmax(1)]
        so_far[going] = sums[:, -1]
        going = going[sums[:, -1] <= limits[-1, going]]
        if not len(going):
            break
    return cuts


def _above(cuts: np.ndarray, peaks: np.ndarray, owner: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The reference lesions of each resample whose peak is above its cut: (resamples,)."""
    levels, which = np.unique(cuts, return_inverse=True)
    below = np.searchsorted(levels, peaks, "left")  # of each lesion, the levels that it is above
    table = np.zeros((len(levels) + 1, draws.shape[1]), np.int64)
    np.add.at(table, (below, owner), 1)
    above = table[::-1].cumsum(0)[::-1][1:]  # (levels, cases)
    return np.einsum("rc,rc->r", draws, above[which])
