"""Panoptic quality of the components of two masks: how many are recognised, and how well those are outlined."""

from __future__ import annotations

import math

import numpy as np

from rarevox.pipeline.evaluation.metrics.lesions import components_of, neighbourhood, sizes_of

COLUMNS = ("pq", "rq")
"""Ratios to which the rule for empty masks applies."""
QUALITY = "sq"
"""The mean over pairs, which is not defined where there is none."""


def panoptic_scores(
    prediction: np.ndarray, reference: np.ndarray, *, connectivity: int = 26, iou: float = 0.5
) -> dict[str, float]:
    """Panoptic, recognition and segmentation quality of connected components.

    Components of the two masks are paired one to one where their IoU exceeds ``iou``; with TP pairs, FP predicted and
    FN reference components without a partner::

        RQ = TP / (TP + FP/2 + FN/2)    SQ = Σ IoU of the pairs / TP    PQ = Σ IoU of the pairs / (TP + FP/2 + FN/2)

    Above 1/2 no component has two partners. Below, pairs are taken in the order of their IoU, the largest first.

    Args:
        prediction: (X, Y, Z) bool.
        reference: (X, Y, Z) bool.
        connectivity: 6, 18 or 26 neighbours join a component.
        iou: above which a pair counts, from 0 to below 1.

    Returns:
        ``pq``, ``rq``, ``sq``; SQ is NaN without a pair, all are where there is no component on either side.

    Source: Kirillov et al., Panoptic segmentation, CVPR 2019.

    Example, two of three voxels found of one component, IoU 2/3, and one missed: PQ = (2/3) / (1 + 1/2):
        >>> a, b = np.zeros((7, 1, 1), bool), np.zeros((7, 1, 1), bool)
        >>> b[[0, 1, 2, 5]], a[[0, 1]] = True, True
        >>> {name: round(value, 4) for name, value in panoptic_scores(a, b).items()}
        {'pq': 0.4444, 'rq': 0.6667, 'sq': 0.6667}
    """
    near = neighbourhood(connectivity)
    ours, theirs = components_of(prediction, near), components_of(reference, near)
    sizes = sizes_of(ours)[1:], sizes_of(theirs)[1:]
    both = (ours > 0) & (theirs > 0)
    pairs, shared = np.unique(np.stack([ours[both], theirs[both]]).astype(np.int64), axis=1, return_counts=True)
    first, second = pairs[0] - 1, pairs[1] - 1
    ratios = shared / (sizes[0][first] + sizes[1][second] - shared)
    taken: tuple[set[int], set[int]] = (set(), set())
    total = 0.0
    for index in np.lexsort((second, first, -ratios)):
        one, other = int(first[index]), int(second[index])
        if ratios[index] > iou and one not in taken[0] and other not in taken[1]:
            taken[0].add(one)
            taken[1].add(other)
            total += float(ratios[index])
    count = len(taken[0])
    whole = (len(sizes[0]) + len(sizes[1])) / 2  # TP + FP/2 + FN/2
    return {"pq": _ratio(total, whole), "rq": _ratio(count, whole), "sq": _ratio(total, count)}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
