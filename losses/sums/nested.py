"""Nested regions: a depth in place of a label for each, so that no label map has to hold them all.

Region k of K holds the voxels of depth k and more, so region 1 holds region 2, and so on: whole tumour, core,
enhancing. The reference of the k-th logit is depth ≥ k.
"""

from __future__ import annotations

import torch
from torch import Tensor

_IGNORED, _WRONG = 255, 2


def is_nested(logits: Tensor, labels: Tensor, *, sigmoid: bool) -> bool:
    """Whether labels (B, 1, *spatial) stand beside several logits of their own each: these are depths."""
    return sigmoid and logits.ndim > 2 and labels.ndim == logits.ndim and logits.shape[1] > 1 and labels.shape[1] == 1


def nested_labels(depth: Tensor, regions: int, ignore_index: int | None) -> tuple[Tensor, int | None]:
    """The labels (B, K, *spatial) of K nested regions, uint8 zeros and ones, and what marks voxels to ignore in them.

    Args:
        depth: (B, 1, *spatial), whole numbers from 0 (in none) to K (in all), of any type.
        regions: K.
        ignore_index: voxels of this depth weigh nothing in any region.

    What is no depth becomes a label that every loss refuses, so that nobody waits for a device here.

    >>> nested_labels(torch.tensor([[[0, 1, 2, 9]]]), 2, ignore_index=9)[0].tolist()
    [[[0, 1, 1, 255], [0, 0, 1, 255]]]
    """
    steps = torch.arange(1, regions + 1, device=depth.device).view(1, -1, *[1] * (depth.ndim - 2))
    found = (depth >= steps).to(torch.uint8)
    wrong = (depth < 0) | (depth > regions)
    if depth.is_floating_point():
        wrong |= depth != depth.round()
    found.masked_fill_(wrong, _WRONG)
    if ignore_index is None:
        return found, None
    return found.masked_fill_(depth == ignore_index, _IGNORED), _IGNORED
