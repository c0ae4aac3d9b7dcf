"""Centreline Dice: whether thin structures are connected as they should be, whatever their width."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from rarevox.pipeline.evaluation.metrics.lesions import neighbourhood

COLUMN = "cldice"
PACKAGE = "skimage"


def is_there() -> bool:
    """Whether scikit-image, which thins masks to their centrelines, is installed."""
    return find_spec(PACKAGE) is not None


def skeleton(mask: np.ndarray) -> np.ndarray:
    """The centreline of a mask; (X, Y, Z) bool to the same, with a voxel in every 26-connected component.

    Thinned by scikit-image (Lee et al., CVGIP 1994), which leaves nothing of many stretches of even width: a tube of
    2 × 2 voxels has no line in it, one that goes on 3 × 3 wide loses its narrow arm, a cube of 4³ all. There, where the
    innermost voxels lie further from the line of their component than a line may end before its tube, it is that of the
    stretch on a grid of half the spacing, on which n voxels side by side are 2n − 1, an odd number.

    Of two voxels, which alone would vanish:
        >>> mask = np.zeros((1, 1, 4), bool)
        >>> mask[..., 1:3] = True
        >>> bool(skeleton(mask).any())
        True
    """
    found = _thinned(mask)
    if not mask.any():
        return found
    inside = tuple(slice(1, 1 + size) for size in mask.shape)
    radius = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[inside]
    components, count = ndimage.label(mask, neighbourhood(26))
    innermost = mask & (radius == ndimage.maximum_filter(radius, 3))
    innermost[innermost] = _far(innermost, found, components, radius)
    line = np.zeros_like(found)
    for box in ndimage.find_objects(ndimage.label(innermost, neighbourhood(26))[0]):
        wide = tuple(slice(max(span.start - 1, 0), span.stop + 1) for span in box)
        for number in np.unique(components[wide][innermost[wide]]):
            line[wide] |= _halfway_line(components[wide] == number)
    line[line] = _far(line, found, components, radius)
    found |= line
    for number in np.setdiff1d(np.arange(1, count + 1), components[found]):  # whatever thinning leaves nothing of
        places = np.flatnonzero(components == number)
        found.ravel()[places[radius.ravel()[places].argmax()]] = True
    return found


def _thinned(mask: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize

    return np.array(skeletonize(mask)) > 0


def _far(some: np.ndarray, line: np.ndarray, components: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(n,) which voxels of ``some`` lie further from the line of their own component than where one may end: by more
    than both radii, theirs and the line's at its nearest voxel, and three voxels. (A bump on a surface does not.)"""
    asked, there = np.argwhere(some), np.argwhere(line)
    if not len(asked) or not len(there):
        return np.ones(len(asked), bool)
    apart = float(sum(some.shape))  # more than any two voxels of one component: of others none is the nearest
    query, known = (np.column_stack([at, apart * components[tuple(at.T)]]) for at in (asked, there))
    distance, nearest = cKDTree(known).query(query)
    reach = radius[tuple(asked.T)] + radius[tuple(there[nearest].T)] + 3
    return np.asarray((distance >= apart) | (distance > reach))


def _halfway_line(mask: np.ndarray) -> np.ndarray:
    """The line of a mask with a voxel between every two that lie side by side, each moved to the first of the two."""
    fine = np.zeros([2 * size - 1 for size in mask.shape], bool)
    fine[::2, ::2, ::2] = mask
    for axis in range(3):
        at = np.moveaxis(fine, axis, 0)
        at[1::2] = at[:-1:2] & at[2::2]
    line = np.zeros_like(mask)
    line[tuple(np.argwhere(_thinned(fine)).T // 2)] = True
    return line


def centreline_dice(
    prediction: np.ndarray, reference: np.ndarray, *, thin: Callable[[np.ndarray], np.ndarray] = skeleton
) -> float:
    """Centreline Dice of two masks.

    With the centrelines S_P and S_R of prediction P and reference R::

        topology precision = |S_P ∩ R| / |S_P|    topology sensitivity = |S_R ∩ P| / |S_R|

    and clDice their harmonic mean; 0 where both are 0.

    Args:
        prediction: (X, Y, Z) bool.
        reference: (X, Y, Z) bool.
        thin: from a mask to its centreline; of one without a voxel the share is 0.

    Returns:
        0 to 1; NaN where a mask is empty, for which the rule for empty masks decides.

    Source: Shit et al., clDice, CVPR 2021; its code thins with scikit-image too, and scores what thinning left alone.

    Example, thin lines are their own centrelines; of four voxels three are found, and one is false:
        >>> a, b = np.zeros((6, 1, 1), bool), np.zeros((6, 1, 1), bool)
        >>> a[1:5], b[:4] = True, True
        >>> centreline_dice(a, b, thin=lambda mask: mask)
        0.75
    """
    if not prediction.any() or not reference.any():
        return math.nan
    ours, theirs = thin(prediction), thin(reference)
    precision = np.count_nonzero(ours & reference) / max(int(np.count_nonzero(ours)), 1)
    sensitivity = np.count_nonzero(theirs & prediction) / max(int(np.count_nonzero(theirs)), 1)
    total = precision + sensitivity
    return float(2 * precision * sensitivity / total) if total else 0.0
