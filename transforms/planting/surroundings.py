"""The tissue around a lesion: one neighbourhood and one estimator for donors and for places alike.

A lesion's contrast is measured against this tissue where it comes from, and set against it where it is planted. The
two can be compared only if both are taken from a neighbourhood of the same kind, in the same way.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

SHELL = 4
"""Voxels around a lesion, along each axis, whose tissue is measured; those that touch the lesion are left out."""
LEAST_TISSUE = 12
"""Healthy voxels of a shell without which nothing can be said of the tissue."""
MOST_TISSUE = 4096
"""Voxels of a shell that are looked at, evenly picked: they give a spread to 1.17/√4096 = 1.8 % of itself."""
MAD_TO_STD = 1.4826
"""The standard deviation of a normal distribution by its median absolute deviation."""


def shell_of(mask: np.ndarray) -> np.ndarray:
    """The shell of a lesion (*spatial) bool: voxels 2 to 4 steps from it, by faces, edges and corners; at most 4096.

    Returns:
        (m, axes), counted from the mask's first voxel: places outside the mask's box are negative, or beyond its size.

    >>> shell_of(np.ones(1, bool)).ravel().tolist()
    [-4, -3, -2, 2, 3, 4]
    """
    wide, full = np.pad(mask, SHELL), np.ones((3,) * mask.ndim, bool)
    near = ndimage.binary_dilation(wide, full)
    shell = np.argwhere(ndimage.binary_dilation(near, full, iterations=SHELL - 1) & ~near) - SHELL
    return evenly(shell, MOST_TISSUE)


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly picked.

    >>> evenly(np.arange(5), 3).tolist()
    [0, 2, 4]
    """
    return rows if len(rows) <= most else rows[np.arange(most) * (len(rows) - 1) // (most - 1)]


def level_and_spread(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Median m, and standard deviation 1.4826 · median |x − m|, along the last axis; NaN are no values.

    For n values of a normal distribution the spread's relative standard error is 1.17/√n (its efficiency is 0.37;
    Rousseeuw and Croux, J. Am. Stat. Assoc. 88, 1993). Medians are numbers of the list, the lower of two in the
    middle: the same whatever else is computed beside them.

    >>> level_and_spread(torch.tensor([1.0, 2.0, 3.0, torch.nan, 90.0, 5.0]))
    (tensor(3.), tensor(2.9652))
    """
    level = values.nanmedian(-1, keepdim=True).values
    return level.squeeze(-1), MAD_TO_STD * (values - level).abs().nanmedian(-1).values
