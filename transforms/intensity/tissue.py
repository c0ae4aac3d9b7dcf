"""Where all channels of a scan have tissue: a head may be stripped in one and whole in another."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

APART = 0.15
"""Where so much of the tissue is 0 in some channel, one is likely to be stripped and another not. Of six scans of FLAIR
and T1 it was 18 and 24 % where the T1 showed skin and fat below a stripped FLAIR, and 0 to 8 % in the others."""


def common_tissue(image: torch.Tensor | np.ndarray) -> torch.Tensor:
    """The voxels in the tissue of every channel: what is not 0, and what that encloses.

    A channel of nothing but 0 is missing, and says nothing. Where all are, no voxel is tissue. Through an axis of one
    voxel leads no way: of a single slice what a ring encloses is within.

    Args:
        image: (C, *spatial), before normalisation.

    Returns:
        bool (1, *spatial).

    Example:
        >>> stripped, whole, missing = [0.0, 0, 5, 0, 6, 0, 0], [0.0, 3, 4, 4, 5, 6, 0], [0.0] * 7
        >>> common_tissue(torch.tensor([stripped, whole, missing])).int()
        tensor([[0, 0, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    shown: np.ndarray = (image != 0).cpu().numpy() if isinstance(image, torch.Tensor) else image != 0
    filled = [_filled(channel) for channel in shown if channel.any()]
    shared = np.logical_and.reduce(filled) if filled else np.zeros(shown.shape[1:], bool)
    return torch.from_numpy(shared[None]).to(image.device if isinstance(image, torch.Tensor) else "cpu")


def _filled(tissue: np.ndarray) -> np.ndarray:
    """With the voxels that it encloses: those from which no way over faces through its outside leads to a border.

    As `scipy.ndimage.binary_fill_holes`, which goes in steps of a voxel, in one labelling.
    """
    outside, count = ndimage.label(~tissue)
    reached = np.zeros(count + 1, bool)
    for axis in (axis for axis, size in enumerate(tissue.shape) if size > 1):
        for face in (0, -1):
            reached[np.take(outside, face, axis)] = True
    reached[0] = False  # the tissue's own number
    return ~reached[outside]


def left_out(image: torch.Tensor, inside: torch.Tensor) -> str:
    """A sentence where over 15 % of a scan's tissue is 0 in one of its channels, and so left out; else empty.

    Args:
        image: (C, *spatial).
        inside: bool, (C, *spatial), its voxels that count.
    """
    tissue = int((image != 0).any(dim=0).sum())
    share = 1 - int(inside.any(dim=0).sum()) / tissue if tissue else 0.0
    if share <= APART:
        return ""
    away = f"{100 * share:.0f} % of the tissue in its channels is 0 in one of them"
    return f"{away} and was left out (stripped of the skull in that alone?)"
