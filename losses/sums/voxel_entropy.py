"""The cross-entropy of every voxel, for losses that choose among the voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.sums.chunks import Span, Volume, softmax_piece
from rarevox.losses.sums.workers import each_piece


def voxel_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None, *, sigmoid: bool, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """−log p of each voxel's label and the weight of the voxel, without gradient.

    Args:
        logits, labels, weight, sigmoid, ignore_index: as of :func:`rarevox.losses.overlap_sums`; their values are not
            checked.

    Returns:
        Both (B, 1, N), or (B, C, N) with ``sigmoid``, in float32, or float64 for float64 logits.

    >>> logits = torch.zeros(1, 4, 2)  # four classes, each with p = 1/4
    >>> entropy, _ = voxel_cross_entropy(logits, torch.zeros(1, 1, 2), None, sigmoid=False, ignore_index=None)
    >>> [round(value, 4) for value in entropy.flatten().tolist()]  # log 4
    [1.3863, 1.3863]
    """
    volume = Volume(logits, labels, weight, sigmoid=sigmoid, ignore_index=ignore_index)
    entropy = torch.empty(volume.problems, volume.labels.shape[-1], dtype=volume.dtype, device=logits.device)
    counted = torch.ones_like(entropy)

    def work(span: Span) -> None:
        piece, voxels = volume.piece(span), volume.voxels(span)
        of_label = softmax_piece(piece.logits).surprisal(piece.logits).mul_(volume.reference(piece.labels))
        torch.sum(of_label, 0, out=entropy[span.problem, voxels])
        if piece.weight is not None:
            counted[span.problem, voxels] = piece.weight

    each_piece(work, volume.spans(), threads=volume.threads)
    return entropy.view(volume.labels.shape), counted.view(volume.labels.shape)
