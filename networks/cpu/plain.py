"""What `rarevox.networks.cpu.ops` is made of where no kernel applies: PyTorch's operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rarevox.compiled import is_exported
from rarevox.networks.cpu.convolution import conv3d
from rarevox.networks.lattices.padding import Layout


def convolve(
    conv: nn.Module,
    x: torch.Tensor,
    layout: Layout,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``conv`` on ``x``, without its dilation on sub-lattices, with other weights if given."""
    weight = conv.get_parameter("weight") if weight is None else weight
    padding, dilation = extent(conv, layout)
    if x.ndim == 4:
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)
    return conv3d(x, weight, bias, padding, dilation)


def extent(conv: nn.Module, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding and dilation of ``conv``; on sub-lattices, where neighbours are a dilation apart already, without it."""
    assert isinstance(conv, (nn.Conv2d, nn.Conv3d))
    assert not isinstance(conv.padding, str)
    if not layout.on_lattices:
        return conv.padding, conv.dilation
    return tuple(p // d for p, d in zip(conv.padding, conv.dilation, strict=True)), (1,) * len(conv.dilation)


def is_undilated(conv: nn.Module, layout: Layout) -> bool:
    """Whether this is a plain 3³ convolution of volumes, for its dilation or on sub-lattices."""
    return isinstance(conv, nn.Conv3d) and (layout.on_lattices or conv.dilation == (1, 1, 1))


def add_channels(y: torch.Tensor, more: torch.Tensor, first: int = 0) -> torch.Tensor:
    """``y`` (B, C, *spatial) plus ``more`` (B, at most C, *spatial) in the channels from ``first`` on.

    In place; with gradients ``y`` must be a tensor that no backward pass needs.

    >>> add_channels(torch.ones(1, 4, 1), torch.ones(1, 2, 1), 1).flatten().tolist()
    [1.0, 2.0, 2.0, 1.0]
    """
    if must_be_plain(y):
        return y.add_(with_channels(more, y.shape[1], first))
    y.narrow(1, first, more.shape[1]).add_(more)
    return y


def must_be_plain(x: torch.Tensor) -> bool:
    """Whether gradients may be asked for: now, or of a program that is recorded, which is one whatever the mode."""
    return torch.is_grad_enabled() or is_exported(x)


def with_channels(x: torch.Tensor, channels: int, first: int = 0) -> torch.Tensor:
    """``x`` (B, C, *spatial) with ``first`` channels of zeros before its own and as many after as make ``channels``."""
    if not torch.jit.is_tracing() and x.shape[1] == channels:
        return x
    return F.pad(x, [0, 0] * (x.ndim - 2) + [first, channels - x.shape[1] - first])
