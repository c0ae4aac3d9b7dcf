"""Channels in whole eights for the tensor cores, which take rows of 16 bytes: zeros after those of a layer.

A convolution whose weights are widened with zeros gives the same numbers, and channels of zeros after them. Weights
stay as they are in the state dict, and are widened where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from rarevox.compiled import is_eager
from rarevox.compiled.gpu import why_none

EIGHT = 8


def pay(x: torch.Tensor) -> bool:
    """Whether whole eights pay for what a convolution makes of ``x``: in half precision on a GPU.

    The norms after it must leave the zeros alone, as the kernels of Triton do.

    >>> pay(torch.zeros(1, 2, 4, 4, 4, dtype=torch.bfloat16))  # not on a GPU
    False
    """
    half = x.is_cuda and (x.dtype.itemsize == 2 or torch.is_autocast_enabled("cuda"))
    return half and why_none() is None and is_eager(x)


def aligned(channels: int) -> int:
    """So many channels in whole eights.

    >>> [aligned(channels) for channels in (30, 40, 50, 150)]
    [32, 40, 56, 152]
    """
    return -(-channels // EIGHT) * EIGHT


def widened(weight: torch.Tensor, widths: Sequence[int], out: int) -> torch.Tensor:
    """A convolution's weights for inputs with zeros between their channels, and outputs with zeros after.

    Args:
        weight: (C', C, *k).
        widths: of the parts of the input, of equal numbers of real channels, C in all, each with zeros after its own.
        out: channels of the result, at least C'.

    Returns:
        (out, Σ widths, *k), ``weight`` itself where nothing is added; differentiable.

    >>> widened(torch.tensor([[1.0, 2.0]]), widths=(2, 1), out=2).tolist()
    [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    """
    rows, columns = weight.shape[:2]
    real = columns // len(widths)
    if out == rows and all(width == real for width in widths):
        return weight
    space = (0, 0) * (weight.ndim - 2)
    parts = [
        F.pad(part, (*space, 0, width - real, 0, out - rows))
        for part, width in zip(weight.split(real, dim=1), widths, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
