"""One label map out of several annotators' by STAPLE: an estimate of the truth and of how good each annotator is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rarevox.transforms.bounding_box import bounding_box

MARGIN = 1
"""Voxels around the box of all annotators' masks that STAPLE sees.

Its prior is the share of the voxels that annotators marked. Over a whole scan nearly all voxels are agreed background,
which says nothing, lets the prior vanish and depends on how much air was scanned; cut so, it does not. One voxel, so
that a structure which fills its box has a background at all.
"""
THRESHOLD = 0.5
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Staple:
    """STAPLE of one structure.

    Attributes:
        box: the part of the grid outside which the probability is 0; None if no annotator marked anything.
        probability: of the structure in ``box``.
        sensitivity: of each annotator, P(marked | in the structure); NaN where the consensus is empty.
        specificity: of each annotator, P(not marked | not in the structure), in the box with its margin.
    """

    box: tuple[slice, ...] | None
    probability: np.ndarray
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]


def consensus(maps: Sequence[np.ndarray], values: Sequence[int]) -> tuple[np.ndarray, dict[int, Staple]]:
    """The consensus of label maps on one grid.

    STAPLE is run for each value by itself. A voxel gets the value whose probability is highest, if that is 0.5 or more;
    of equal ones the lowest value; else 0. The consensus of a single map is that map.

    Args:
        maps: (X, Y, Z) integers each, one for each annotator.
        values: the label values; others are background. 0 is left out.

    Returns:
        (X, Y, Z) labels, and STAPLE by value.

    Raises:
        ValueError: no map, or maps of different shapes.

    >>> a = np.array([0, 1, 1, 0, 0]).reshape(5, 1, 1)
    >>> b = np.array([0, 1, 1, 1, 0]).reshape(5, 1, 1)
    >>> consensus([a, a, b], [1])[0].ravel().tolist()
    [0, 1, 1, 0, 0]
    """
    if not maps or len({labels.shape for labels in maps}) > 1:
        raise ValueError(f"a consensus needs maps of one shape; given are {[labels.shape for labels in maps]}")
    values = sorted(set(values) - {0})
    best = np.full(maps[0].shape, np.nextafter(THRESHOLD, 0.0))  # what has to be beaten
    labels = np.zeros(maps[0].shape, np.uint8 if max(values, default=0) < 256 else np.int32)
    found = {}
    for value in values:
        one = staple([labels_of == value for labels_of in maps])
        found[value] = one
        if one.box is not None:
            better = one.probability > best[one.box]
            best[one.box][better] = one.probability[better]
            labels[one.box][better] = value
    return labels, found


def staple(masks: Sequence[np.ndarray]) -> Staple:
    """Expectation maximisation of Warfield et al. by SimpleITK, on the box of the union and a margin.

    The margin may reach beyond the grid, where nothing is marked, so that the result does not depend on how much
    background surrounds the structure.

    Source: Warfield, Zou and Wells, IEEE Transactions on Medical Imaging 23, 2004.
    """
    union = np.logical_or.reduce(masks)
    box = bounding_box(union)
    if box is None:
        return Staple(None, np.zeros(0), (math.nan,) * len(masks), (1.0,) * len(masks))
    crops = [mask[box] for mask in masks]
    if all(np.array_equal(crops[0], crop) for crop in crops[1:]):
        return Staple(box, crops[0].astype(float), (1.0,) * len(masks), (1.0,) * len(masks))
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray(np.pad(crop, MARGIN).astype(np.uint8)) for crop in crops]
    estimate = sitk.STAPLEImageFilter()
    estimate.SetForegroundValue(1)
    estimate.SetMaximumIterations(MAX_ITERATIONS)
    estimate.SetNumberOfWorkUnits(1)
    inside = (slice(MARGIN, -MARGIN),) * union.ndim
    probability = np.nan_to_num(sitk.GetArrayFromImage(estimate.Execute(images))[inside])
    empty = not (probability >= THRESHOLD).any()
    sensitivity = tuple(math.nan if empty else float(p) for p in estimate.GetSensitivity())
    return Staple(box, probability, sensitivity, tuple(float(q) for q in estimate.GetSpecificity()))
