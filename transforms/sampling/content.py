"""Where a scan shows something: the anatomy, and not the empty space around it."""

from __future__ import annotations

import numpy as np

SAMPLED = 100_000
"""Voxels of a volume that are looked at for its commonest value."""
CONSTANT_SHARE = 0.05
"""A value that so many voxels have exactly is that of the empty space around the anatomy."""


def content_of(image: np.ndarray) -> np.ndarray:
    """Where a scan (C, *spatial) shows something: some channel differs from the value of its empty space.

    The value of the empty space is the one that most voxels have exactly, where a twentieth of them do (0 in
    skull-stripped scans, whatever normalisation made of it). A channel without one, such as a CT, is content
    throughout; so is a scan in which nothing differs.

    >>> content_of(np.array([[-0.5, -0.5, -0.5, 1.0, 2.0]])).tolist()
    [False, False, False, True, True]
    """
    content = np.zeros(image.shape[1:], bool)
    for channel in image:
        flat = channel.reshape(-1)
        values, counts = np.unique(flat[:: max(flat.size // SAMPLED, 1)], return_counts=True)
        common = int(counts.argmax())
        if counts[common] < CONSTANT_SHARE * counts.sum() or counts[common] == 1:
            return np.ones(image.shape[1:], bool)
        content |= channel != values[common]
    return content if content.any() else np.ones(image.shape[1:], bool)
