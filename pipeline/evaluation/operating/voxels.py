"""Precision and recall of one structure over thresholds, from counts of voxels that add up.

Average precision is Σ (R_k − R_{k−1}) · P_k over falling thresholds, the last of them below all scores: scikit-learn's
``average_precision_score`` of scores rounded down to the thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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


def counts_of(curve: Mapping[str, Any]) -> np.ndarray:
    """The counts that a curve was made of: (2, edges + 1).

    >>> counts_of(voxel_curve([0.5], np.array([[6, 1], [1, 2]]))).tolist()
    [[6, 1], [1, 2]]
    """
    predicted = np.array([curve["voxels"], *curve["predicted"], 0], np.int64)
    true = np.array([curve["positives"], *curve["true"], 0], np.int64)
    return np.asarray(-np.diff(np.stack([predicted - true, true]), axis=1))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
