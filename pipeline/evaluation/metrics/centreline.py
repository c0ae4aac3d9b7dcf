"""Centreline Dice: whether thin structures are connected as they should be, whatever their width."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

COLUMN = "cldice"
PACKAGE = "skimage"


def is_there() -> bool:
    """Whether scikit-image, which thins masks to their centrelines, is installed."""
    return find_spec(PACKAGE) is not None


def skeleton(mask: np.ndarray) -> np.ndarray:
    """The centreline of a mask, thinned by scikit-image (Lee et al., CVGIP 1994); (X, Y, Z) bool to the same."""
    from skimage.morphology import skeletonize

    return np.asarray(skeletonize(mask)) > 0


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
        thin: from a mask to its centreline.

    Returns:
        0 to 1; NaN where a mask is empty, for which the rule for empty masks decides.

    Source: Shit et al., clDice, CVPR 2021; its code thins with scikit-image too.

    Example, thin lines are their own centrelines; of four voxels three are found, and one is false:
        >>> a, b = np.zeros((6, 1, 1), bool), np.zeros((6, 1, 1), bool)
        >>> a[1:5], b[:4] = True, True
        >>> centreline_dice(a, b, thin=lambda mask: mask)
        0.75
    """
    if not prediction.any() or not reference.any():
        return math.nan
    ours, theirs = thin(prediction), thin(reference)
    precision = np.count_nonzero(ours & reference) / np.count_nonzero(ours)
    sensitivity = np.count_nonzero(theirs & prediction) / np.count_nonzero(theirs)
    total = precision + sensitivity
    return float(2 * precision * sensitivity / total) if total else 0.0
