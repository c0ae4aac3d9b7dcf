"""Centreline Dice: whether thin structures are connected as they should be, whatever their width."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.lesions import neighbourhood

COLUMN = "cldice"
PACKAGE = "skimage"


def is_there() -> bool:
    """Whether scikit-image, which thins masks to their centrelines, is installed."""
    return find_spec(PACKAGE) is not None


def skeleton(mask: np.ndarray) -> np.ndarray:
    """The centreline of a mask; (X, Y, Z) bool to the same, with a voxel in every 26-connected component.

    Thinned by scikit-image (Lee et al., CVGIP 1994), which leaves nothing of many stretches of even width: a tube of
    2 × 2 voxels has no line in it, one that goes on 3 × 3 wide loses its narrow arm, a cube of 4³ all. There the line
    is that of the mask made a voxel wider, which is odd: what of it lies in the mask, further from the first line than
    the width of the mask and a voxel.

    Of two voxels, which alone would vanish:
        >>> mask = np.zeros((1, 1, 4), bool)
        >>> mask[..., 1:3] = True
        >>> bool(skeleton(mask).any())
        True
    """
    from skimage.morphology import skeletonize

    found: np.ndarray = np.asarray(skeletonize(mask)) > 0
    if not mask.any():
        return found
    wider = np.pad(mask, (0, 1))
    for axis in range(mask.ndim):
        wider |= np.roll(wider, 1, axis)  # nothing comes round: the last slice is what was added
    other = (np.asarray(skeletonize(wider)) > 0)[tuple(slice(size) for size in mask.shape)] & mask
    inside = tuple(slice(1, 1 + size) for size in mask.shape)
    radius = ndimage.distance_transform_edt(np.pad(mask, 1))[inside]
    if not found.any():
        found = other
    elif other.any():
        found |= other & (ndimage.distance_transform_edt(~found) > 2 * radius + 1)
    components, count = ndimage.label(mask, neighbourhood(26))
    numbers = np.arange(1, count + 1)
    bare = numbers[ndimage.maximum(found, components, numbers) == 0]
    if len(bare):  # of these the innermost voxels
        most = np.zeros(count + 1)
        most[bare] = ndimage.maximum(radius, components, bare)
        found |= mask & (most[components] > 0) & (radius == most[components])
    return found


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
