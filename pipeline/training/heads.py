"""Deep supervision: a network that answers at several depths while it trains, and the loss over all of its answers.

In training MONAI's networks with ``deep_supervision=True`` return (B, K, C, *spatial): the final logits first, then
those of ever coarser heads, brought to the same size. In evaluation they return the final logits alone.

The loss is Σ_k w_k · loss(head k), w_k = 2^−k / Σ_j 2^−j: the weights of nnU-Net (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def heads_of(logits: torch.Tensor, spatial_dims: int) -> tuple[torch.Tensor, ...]:
    """The logits (B, C, *spatial) of each head, the final one first; of a plain network its logits as they are.

    >>> [head.shape for head in heads_of(torch.zeros(2, 3, 4, 8, 8), 2)]
    [torch.Size([2, 4, 8, 8]), torch.Size([2, 4, 8, 8]), torch.Size([2, 4, 8, 8])]
    """
    if logits.ndim == spatial_dims + 2:
        return (logits,)
    return tuple(head.contiguous() for head in logits.unbind(1))


def head_weights(count: int) -> list[float]:
    """The weights of so many heads, which add up to 1.

    >>> head_weights(1), [round(7 * w, 6) for w in head_weights(3)]
    ([1.0], [4.0, 2.0, 1.0])
    """
    whole = sum(0.5**k for k in range(count))
    return [0.5**k / whole for k in range(count)]


def weighted_sum(values: Sequence[Any]) -> Any:
    """Σ_k w_k · value of head k, of numbers or tensors; one value is itself.

    >>> weighted_sum([7.0, 0.0, 0.0])
    4.0
    """
    total = head_weights(len(values))[0] * values[0]
    for weight, value in zip(head_weights(len(values))[1:], values[1:], strict=True):
        total = total + weight * value
    return total
