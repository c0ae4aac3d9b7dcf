"""Where all channels of a scan have tissue: a head may be stripped in one and whole in another."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage


def common_tissue(image: torch.Tensor | np.ndarray) -> torch.Tensor:
    """The voxels in the tissue of every channel: what is not 0, and what that encloses.

    A channel of nothing but 0 is missing, and says nothing. Where all are, no voxel is tissue.

    Args:
        image: (C, *spatial), before normalisation.

    Returns:
        bool (1, *spatial).

    Example:
        >>> stripped, whole, missing = [0.0, 0, 5, 0, 6, 0, 0], [0.0, 3, 4, 4, 5, 6, 0], [0.0] * 7
        >>> common_tissue(torch.tensor([stripped, whole, missing])).int()
        tensor([[0, 0, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    channels = image.cpu().numpy() if isinstance(image, torch.Tensor) else image
    filled = [_filled(channel != 0) for channel in channels if channel.any()]
    shared = np.logical_and.reduce(filled) if filled else np.zeros(channels.shape[1:], bool)
    return torch.from_numpy(shared[None]).to(image.device if isinstance(image, torch.Tensor) else "cpu")


def _filled(tissue: np.ndarray) -> np.ndarray:
    """With the voxels that it encloses: those from which no way over faces through its outside leads to a border.

    As `scipy.ndimage.binary_fill_holes`, which goes in steps of a voxel, in one labelling.
    """
    outside, count = ndimage.label(~tissue)
    reached = np.zeros(count + 1, bool)
    for axis in range(tissue.ndim):
        for face in (0, -1):
            reached[np.take(outside, face, axis)] = True
    reached[0] = False  # the tissue's own number
    return ~reached[outside]
