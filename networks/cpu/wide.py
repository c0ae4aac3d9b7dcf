"""Channels of zeros where whole eights of channels pay, see `rarevox.networks.cuda.channels`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from rarevox.networks.cpu.plain import convolve, extent
from rarevox.networks.cuda import channels
from rarevox.networks.lattices.padding import WHOLE, Layout


class Wide(NamedTuple):
    """That channels of zeros may stand in a network, where whole eights of channels pay.

    Args:
        widths: of the parts of an input that was put together, each with zeros after its own channels; empty for one.
        out: whether the result may have zeros after its channels.
    """

    widths: tuple[int, ...] = ()
    out: bool = True


def widths(full: torch.Tensor, low: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """For `Wide`: the channels of what `beside` puts together, with their zeros; empty where there can be none."""
    return (full.shape[1], *(path.shape[1] for path in low)) if channels.pay(full) else ()


def pointwise_convolution(x: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    """A 1³ convolution with bias of ``x`` (B, C, *spatial), after whose channels zeros may follow."""
    if not channels.pay(x):
        y: torch.Tensor = conv(x)
        return y
    weight = widened_weight(conv.get_parameter("weight"), x, Wide(out=False))
    return convolve(conv, x, WHOLE, weight, None if conv.bias is None else conv.get_parameter("bias"))


def widened_weight(weight: torch.Tensor, x: torch.Tensor, wide: Wide | None) -> torch.Tensor:
    """The weights for inputs and results with channels of zeros, where these pay; in the type of the convolution."""
    if wide is None or not channels.pay(x):
        return weight
    if torch.is_autocast_enabled("cuda"):
        weight = weight.to(torch.get_autocast_dtype("cuda"))
    rows = weight.shape[0]
    return channels.widened(weight, wide.widths or (x.shape[1],), channels.aligned(rows) if wide.out else rows)


def bytes_of(conv: nn.Module, x: torch.Tensor, layout: Layout) -> int:
    """Of the convolution's result in half precision."""
    padding, dilation = extent(conv, layout)
    weight = conv.get_parameter("weight")
    lengths = zip(x.shape[2:], padding, dilation, weight.shape[2:], strict=True)
    return 2 * x.shape[0] * weight.shape[0] * math.prod(n + 2 * p - d * (k - 1) for n, p, d, k in lengths)
