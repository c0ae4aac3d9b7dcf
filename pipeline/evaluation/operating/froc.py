"""FROC of one structure: the share of reference lesions detected over the mean number of false ones a scan.

A point is a confidence: the curve has one for every peak of a predicted lesion. Its score is the mean of the share at
1/8, 1/4, 1/2, 1, 2, 4 and 8 false lesions a scan, each the largest that is reached within so many. All figures are of
all points; those that are written down are as many as a drawing needs.

Source: Setio et al., LUNA16, Medical Image Analysis 2017, for the score; there the curve is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import Detections, joined
from rarevox.pipeline.evaluation.operating.froc_interval import score_interval

FALSE_LESIONS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MOST_POINTS = 400
"""So many are all written down; of more, corners of the curve."""
FINENESS = 200
"""Parts of each axis (the share; from 1/8 to 8 false lesions a scan, logarithmic) that a drawing tells apart."""


def froc(
    cases: Sequence[Detections], confidence: float, options: MetricOptions, subjects: Sequence[str] | None = None
) -> dict[str, Any]:
    """Detected, true and false lesions over all cases; the figures of the curve.

    Every peak is a point, and every figure is of all points, whatever their number: they are sorted once and their
    counts cumulated. Written down are at most 400; of more :func:`corners`, and of these, if need be, one in each
    1/200 of an axis, so that no point of the curve lies farther from what is drawn.

    Args:
        cases: the lesions of each.
        confidence: the run's own, which is among the points.
        options: the bootstrap.
        subjects: of each case; None: each is of its own.

    Example, two reference lesions, found at 0.9 and 0.6, and a false one at 0.7:
        >>> ones, false = np.ones(3, int), np.array([False, True, False])
        >>> case = Detections(np.array([0.9, 0.7, 0.6]), ones, ones, ~false, ones > 0, np.array([0.9, 0.6]))
        >>> found = froc([case], 0.0, MetricOptions())
        >>> found["confidence"], found["sensitivity"], found["false_per_scan"], round(found["froc_score"], 4)
        ([0.0, 0.6, 0.7, 0.9], [1.0, 1.0, 0.5, 0.5], [1.0, 1.0, 1.0, 0.0], 0.7857)
    """
    everything = joined(cases)
    levels = np.unique(np.concatenate([[0.0, confidence], everything.peaks]))
    told = everything.at(levels)
    detected, true, false = (told[key] for key in ("detected", "true", "false"))
    reference, scans = len(everything.reference_peaks), max(len(cases), 1)
    reached = {f"{most:g}": reached_within(detected, false / scans, most) / (reference or 1) for most in FALSE_LESIONS}
    kept = _points(detected, false / scans, reference, int(np.searchsorted(levels, confidence)))
    detected, true, false = (column[kept] for column in (detected, true, false))
    return {
        "confidence": levels[kept].tolist(),
        "detected": detected.tolist(),
        "true": true.tolist(),
        "false": false.tolist(),
        "sensitivity": _ratios(detected, np.full(len(kept), reference)),
        "false_per_scan": (false / scans).tolist(),
        "precision": _ratios(true, true + false),
        "points": len(levels),
        "reference": reference,
        "sensitivity_at": reached,
        "froc_score": float(np.mean(list(reached.values()))) if reference else math.nan,
        "froc_score_ci95": score_interval(cases, FALSE_LESIONS, options, subjects),
    }


def reached_within(values: np.ndarray, rate: np.ndarray, most: float) -> float:
    """The largest of some values at no more than so many false lesions a scan; 0 where no point has so few.

    >>> reached_within(np.array([0.9, 0.6, 0.3]), np.array([2.0, 1.0, 0.25]), 1.0)
    0.6
    """
    return float(values[rate <= most].max(initial=0.0))


def _points(detected: np.ndarray, rate: np.ndarray, reference: int, own: int) -> np.ndarray:
    """Which points are written down, the run's own and both ends among them."""
    if len(detected) <= MOST_POINTS:
        return np.arange(len(detected))
    kept = corners(detected, rate)
    if len(kept) > MOST_POINTS:
        cells = np.stack([detected[kept] / max(reference, 1), np.log2(np.maximum(8 * rate[kept], 1)) / 6])
        cells = np.floor(FINENESS * cells)
        kept = kept[np.concatenate([[True], (np.diff(cells) != 0).any(0)])]
    return np.unique([0, own, len(detected) - 1, *kept])


def corners(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The points without which a line would be drawn otherwise: no repeated ones, and of a straight run its ends.

    Args:
        across, along: (n,) coordinates. A run counts as straight where one of them stays the same.

    >>> corners(np.array([3, 3, 3, 2, 1, 1]), np.array([4, 4, 2, 2, 2, 2]))
    array([0, 2, 4])
    """
    new = np.concatenate([[True], (np.diff(across) != 0) | (np.diff(along) != 0)])
    kept = np.flatnonzero(new)
    still = np.stack([np.diff(across[kept]) == 0, np.diff(along[kept]) == 0])
    inner = (still[:, :-1] & still[:, 1:]).any(0)
    return kept[np.concatenate([[True], ~inner, [True]])[: len(kept)]]


def _ratios(part: np.ndarray, whole: np.ndarray) -> list[float]:
    """Element by element; NaN of nothing."""
    return np.divide(part, whole, out=np.full(len(part), math.nan), where=whole > 0).tolist()
