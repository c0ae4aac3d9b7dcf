"""A block and its mirror images through a network, averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

_LEAST = 2.0**-23
"""A mean of probabilities is no nearer to 0 or 1 than this, as its logit is to be finite."""


def mirrored_mean(
    block: torch.Tensor, call: Callable[[torch.Tensor], torch.Tensor], axes: Sequence[int], *, nested: bool = False
) -> torch.Tensor:
    """Mean probabilities over the mirror images of a block along every subset of some axes, each turned back.

    Args:
        block: (B, C_in, *spatial).
        call: gives logits (B, C, *spatial).
        axes: of space, from 0.
        nested: the outputs are nested regions, P_k = min(σ(z_1), …, σ(z_k)), and the logits of their means are
            returned.

    Returns:
        (B, C, *spatial) float32.

    Example:
        >>> block = torch.tensor([[[1.0, 3.0]]])
        >>> mirrored_mean(block, lambda x: torch.cat([x, 0 * x], 1), [0])[0, 0]
        tensor([0.7311, 0.9526])
    """
    total: torch.Tensor | None = None
    for some in subsets(axes):
        dims = [axis + 2 for axis in some]
        scores = call(block.flip(dims) if dims else block).float()
        # The probability of a nested region is at most that of the one around it, in each image as in the mean.
        scores = scores.cummin(1).values.sigmoid() if nested else scores.softmax(1)
        scores = scores.flip(dims) if dims else scores
        total = scores if total is None else total.add_(scores)
    assert total is not None
    mean = total.div_(2 ** len(axes))
    return mean.logit(_LEAST) if nested else mean


def subsets(axes: Sequence[int]) -> Iterator[list[int]]:
    """Every subset of the axes, the empty one first.

    >>> list(subsets([0, 2]))
    [[], [0], [2], [0, 2]]
    """
    for bits in range(2 ** len(axes)):
        yield [axis for place, axis in enumerate(axes) if bits >> place & 1]
