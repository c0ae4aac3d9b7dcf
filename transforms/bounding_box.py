"""The smallest box around what a mask marks."""

from __future__ import annotations

import numpy as np
import scipy


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds every voxel of a mask that is not 0; None where there is no such voxel.

    >>> bounding_box(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (slice(1, 2, None), slice(1, 3, None))
    """
    marked = mask if mask.dtype == bool else mask != 0
    found: tuple[slice, ...] | None = scipy.ndimage.find_objects(marked.view(np.uint8), max_label=1)[0]
    return found
