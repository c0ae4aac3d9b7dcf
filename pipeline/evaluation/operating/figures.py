"""Precision and recall over thresholds, and FROC over confidences, of one structure: figures of counts that add up.

Average precision is Σ (R_k − R_{k−1}) · P_k over falling thresholds, the last of them below all scores: scikit-learn's
``average_precision_score`` of scores rounded down to the thresholds.

FROC is the share of reference lesions detected over the mean number of false lesions a scan, at every confidence. Its
score is the mean of that share at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false lesions a scan, each the largest that is reached
within so many.

Source: Setio et al., LUNA16, Medical Image Analysis 2017, for the score; there the curve is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.aggregate import bootstrap_means, interval
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import Detections

FALSE_LESIONS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MOST_POINTS = 400
"""Of a FROC curve: of more confidences these are taken evenly by rank."""


def voxel_curve(edges: Sequence[float], counts: np.ndarray) -> dict[str, Any]:
    """Counts, precision and recall of the voxels above each threshold, and the average precision.

    Args:
        edges: rising thresholds.
        counts: (2, edges + 1) voxels without and with the structure; the bin k has scores above k edges.

    Example, three voxels above 0.5 of which two have it, and one that has it below:
        >>> found = voxel_curve([0.5], np.array([[6, 1], [1, 2]]))
        >>> found["precision"], found["recall"], round(found["average_precision"], 4)  # 2/3 · 2/3 + 1/3 · 3/10
        ([0.6666666666666666], [0.6666666666666666], 0.5444)
    """
    above = counts[:, ::-1].cumsum(1)[:, ::-1]  # of each bin and those beyond it
    positives, total = int(counts[1].sum()), int(counts.sum())
    true, predicted = above[1, 1:], above[:, 1:].sum(0)
    precision = [_ratio(int(t), int(p)) for t, p in zip(true, predicted, strict=True)]
    recall = [_ratio(int(t), positives) for t in true]
    area, before = 0.0, 0
    for t, p in [*zip(true[::-1], predicted[::-1], strict=True), (positives, total)]:
        area += (t - before) * t / p if p else 0.0
        before = int(t)
    return {
        "threshold": list(edges),
        "predicted": [int(n) for n in predicted],
        "true": [int(n) for n in true],
        "precision": precision,
        "recall": recall,
        "positives": positives,
        "voxels": total,
        "average_precision": float(area / positives) if positives else math.nan,
    }


def froc(cases: Sequence[Detections], confidence: float, options: MetricOptions) -> dict[str, Any]:
    """Detected, true and false lesions over all cases at every confidence; the figures of the curve.

    Args:
        cases: the lesions of each.
        confidence: the run's own, which is among the points.
        options: the bootstrap over cases.
    """
    levels = _levels(cases, confidence)
    told = [case.at(levels) for case in cases]
    tables = {
        key: np.array([one[key] for one in told]).reshape(len(cases), len(levels))
        for key in ("detected", "true", "false")
    }
    wanted = np.array([len(case.reference_peaks) for case in cases])
    detected, true, false = (tables[key].sum(0) for key in ("detected", "true", "false"))
    reference, n = int(wanted.sum()), max(len(cases), 1)
    sensitivity = [_ratio(int(d), reference) for d in detected]
    rate = [float(f) / n for f in false]
    reached = {f"{most:g}": reached_within(sensitivity, rate, most) for most in FALSE_LESIONS}
    score = float(np.mean(list(reached.values()))) if reference else math.nan
    return {
        "confidence": [float(level) for level in levels],
        "detected": [int(v) for v in detected],
        "true": [int(v) for v in true],
        "false": [int(v) for v in false],
        "sensitivity": sensitivity,
        "false_per_scan": rate,
        "precision": [_ratio(int(t), int(t + f)) for t, f in zip(true, false, strict=True)],
        "reference": reference,
        "sensitivity_at": reached,
        "froc_score": score,
        "froc_score_ci95": _score_interval(tables["detected"], tables["false"], wanted, options),
    }


def reached_within(sensitivity: Sequence[float], rate: Sequence[float], most: float) -> float:
    """The largest sensitivity at no more than so many false lesions a scan; 0 where no point has so few.

    >>> reached_within([0.9, 0.6, 0.3], [2.0, 1.0, 0.25], 1.0)
    0.6
    """
    return max((s for s, r in zip(sensitivity, rate, strict=True) if r <= most and math.isfinite(s)), default=0.0)


def _levels(cases: Sequence[Detections], confidence: float) -> np.ndarray:
    """Every confidence of a predicted lesion, rising; the run's own, and one at which nothing is cut."""
    peaks = np.unique(np.concatenate([np.zeros(0), *(case.peaks for case in cases)]))
    if len(peaks) > MOST_POINTS:
        peaks = peaks[np.linspace(0, len(peaks) - 1, MOST_POINTS).round().astype(int)]
    return np.unique([0.0, confidence, *peaks])


def _score_interval(detected: np.ndarray, false: np.ndarray, wanted: np.ndarray, options: MetricOptions) -> list[float]:
    """The 95 % interval of the FROC score, percentile bootstrap over cases."""
    if len(wanted) < 2 or not wanted.sum():
        return [math.nan, math.nan]
    points = detected.shape[1]
    means = bootstrap_means(np.concatenate([detected, false, wanted[:, None]], 1).astype(float), options)
    hits, rate, size = means[:, :points], means[:, points : 2 * points], means[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / size
    scores = np.mean([np.where(rate <= most, share, 0.0).max(1) for most in FALSE_LESIONS], 0)
    return interval(scores)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
