"""What networks are made of, each in one pass over the memory where the CPU has kernels for it: the only door to them.

Every function is total: where no kernel applies (another device or number format, gradients, an odd number of
channels, no Numba) it computes the same with PyTorch's operations. Networks import nothing else of this folder.

In evaluation a batch norm is folded into the weights before it, or applied on the way into the convolution after it; in
training norm and activation happen on the way into the convolution, whose input alone is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from rarevox.compiled import is_eager, is_exported
from rarevox.networks.cpu.convolution import (
    Conv3d,
    conv3d,
    fused_conv3d,
    load_kernels,
    prefers_float32,
    use_fast_convolutions,
)
from rarevox.networks.cpu.fold import Folded, fold
from rarevox.networks.cpu.instructions.sizes import LANES
from rarevox.networks.cpu.instructions.sizes import PANEL as FAST_CHANNELS
from rarevox.networks.cpu.joint import beside, joint_layers
from rarevox.networks.cpu.norm import convolution as training
from rarevox.networks.cpu.planes import can_stream, in_planes
from rarevox.networks.cpu.pointwise import chain as pointwise
from rarevox.networks.cpu.spare import Spare
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.cuda import affine
from rarevox.networks.lattices.padding import WHOLE, Layout, update_running_statistics, zero_outside_
from rarevox.networks.lattices.side_by_side import clear_planes_, fill_planes_
from rarevox.networks.norms import norm_act
from rarevox.networks.protocols import NormAct

__all__ = [
    "FAST_CHANNELS",
    "Conv3d",
    "Spare",
    "add_channels",
    "beside",
    "can_stream",
    "conv_norm_act",
    "in_planes",
    "joint_layers",
    "load_kernels",
    "norm_act_conv",
    "pointwise_chain",
    "prefers_float32",
    "residual_block",
    "takes_tiles",
    "use_fast_convolutions",
]

ResidualParts = tuple[NormAct, nn.Module, NormAct, nn.Module]
"""norm1 with its activation, conv1, norm2 with its activation, conv2."""


def takes_tiles(x: torch.Tensor) -> bool:
    """Whether 3³ convolutions of ``x`` (B, C, *spatial) and of the like of it may go through the kernels that compute
    tiles of 4³ voxels."""
    plain = x.ndim != 5 or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    return not plain and not _must_be_plain(x) and is_eager(x) and winograd.kernels() is not None


def conv_norm_act(
    x: torch.Tensor,
    conv: nn.Module,
    layer: NormAct,
    layout: Layout = WHOLE,
    *,
    out: torch.Tensor | None = None,
    add: torch.Tensor | None = None,
) -> torch.Tensor:
    """act(norm(conv(x))) + add, zero in the padding.

    Args:
        x: (B', C, *spatial).
        conv: a convolution without bias and with stride 1; on sub-lattices its dilation is left out.
        layer: norm and activation.
        layout: how the voxels of ``x`` lie.
        out: without gradients, what the result is written to: channels last, sharing no memory with ``x`` or ``add``.
        add: (B', at most C', *spatial'), added to the first channels.

    Returns:
        (B', C', *spatial').
    """
    folded = None if _must_be_plain(x) else fold(layer)
    if folded is None:
        y = _norm_act(layout.clear(_convolve(conv, x, layout)), layer, layout)
    else:
        weight = conv.get_parameter("weight") * folded.scale.view(-1, *(1,) * (x.ndim - 1))
        padding, dilation = _extent(conv, layout)
        if x.ndim == 5 and not any(d > 1 for d in dilation) and winograd.pays(x, weight, padding):
            y = fused_conv3d(x, weight, padding[0], bias=folded.shift, slope=folded.slope, out=out, add=add)
            return layout.clear(y)
        y = _convolved_act(conv, x, weight, folded, layer, layout)
    y = y if out is None else out.copy_(y)
    if add is None:
        return y
    return y + _widened(add, y.shape[1]) if _must_be_plain(x) else add_channels(y, add)


def norm_act_conv(
    x: torch.Tensor, layer: NormAct, conv: nn.Module, layout: Layout = WHOLE, add: torch.Tensor | None = None
) -> torch.Tensor:
    """conv(act(norm(x))) + add, zero in the padding; in training one step that keeps ``x`` alone.

    Args:
        x: (B', C, *spatial), zero in the padding.
        layer: norm and activation; in training the running statistics of a batch norm are updated.
        conv: a convolution without bias that keeps the size; on sub-lattices its dilation is left out.
        layout: how the voxels of ``x`` lie.
        add: (B', at most C', *spatial), added to the channels in the middle.

    Returns:
        (B', C', *spatial).
    """
    first = 0 if add is None else (conv.get_parameter("weight").shape[0] - add.shape[1]) // 2
    if not (_undilated(conv, layout) and training.fits(x, layer, conv.get_parameter("weight"), add, first)):
        y = layout.clear(_convolve(conv, _norm_act(x, layer, layout), layout))
        return y if add is None else add_channels(y, add, first)
    padding = layout.padding
    inside = x.numel() // x.shape[1] if padding is None else padding.inside
    y, mean, variance = training.norm_act_conv(
        x,
        layer,
        conv.get_parameter("weight"),
        add,
        first,
        None if padding is None else training.Outside(padding.extents, inside, partial(zero_outside_, padding=padding)),
    )
    assert isinstance(layer.norm, nn.BatchNorm3d)
    update_running_statistics(layer.norm, mean, variance * (inside / max(inside - 1, 1)))
    return y


def residual_block(
    x: torch.Tensor, parts: ResidualParts, layout: Layout = WHOLE, spare: Spare | None = None, name: str = "block"
) -> torch.Tensor:
    """conv2(act(norm2(conv1(act(norm1(x)))))) + x without gradients, ``x`` added to the channels in the middle.

    With ``spare``, the first norm and both activations are done on the way into the convolutions and out of them, where
    the kernels take them; every convolution is then one pass over the memory.

    Args:
        x: (B', C, *spatial); with ``spare`` overwritten by the result where the channels do not grow.
        parts: norms with activations, and convolutions that keep the size.
        layout: how the voxels of ``x`` lie.
        spare: where the tensors in between, and a result with more channels, may lie.
        name: blocks of one name share that memory, so that the one before must be done with.

    Returns:
        (B', C', *spatial).
    """
    norm1, conv1, norm2, conv2 = parts
    weight1, weight2 = conv1.get_parameter("weight"), conv2.get_parameter("weight")
    assert isinstance(conv1, (nn.Conv2d, nn.Conv3d))
    more = conv1.out_channels - conv1.in_channels  # numbers also for a tracer, to which sizes are data
    # The kernels add whole vectors of channels.
    aligned = more == 0 or (more // 2 % LANES == 0 and conv1.in_channels % LANES == 0)
    fits = spare is not None and aligned and _undilated(conv1, layout) and winograd.pays(x, weight1, (1, 1, 1))
    first, second = (fold(norm1), fold(norm2)) if fits else (None, None)
    zero = None if first is None or not layout.planes else _before_zero(first)
    if spare is None or first is None or second is None or (layout.planes and zero is None):
        between = conv_norm_act(_norm_act(x, norm1, layout), conv1, norm2, layout)
        y = layout.clear(_convolve(conv2, between, layout))
        return y.add_(x) if more == 0 else add_channels(y, x, more // 2)
    # One input channel has no order of the axes: PyTorch's convolution of it may put the channels first.
    x = x.contiguous(memory_format=torch.channels_last_3d)
    shape = (x.shape[0], weight1.shape[0], *x.shape[2:])
    extents = None if layout.padding is None else layout.padding.extents
    if zero is not None:
        fill_planes_(x, layout.planes, zero.view(-1, 1, 1))
    y = winograd.convolve(
        x,
        weight1 * second.scale.view(-1, 1, 1, 1, 1),
        1,
        winograd.Around(norm=torch.stack(first), bias=torch.stack(second[1:]), extents=extents),
        out=spare.take(f"{name} between", shape),
    )
    clear_planes_(y, layout.planes)
    out = x if more == 0 else spare.take(f"{name} result", shape)
    return winograd.convolve(y, weight2, 1, winograd.Around(add=x, first=more // 2, extents=extents), out=out)


def _before_zero(layer: Folded) -> torch.Tensor | None:
    """For each channel a number of which norm and activation make exactly 0; None where there is none.

    A ReLU makes 0 of whatever is not positive, so v · scale + shift = −1 or so will do, unless ``scale`` is 0.
    """
    v = -(layer.shift.abs() + 1) / layer.scale
    return v if not layer.slope.any() and bool(v.isfinite().all()) else None


def pointwise_chain(
    x: torch.Tensor, hidden: Sequence[tuple[nn.Module, NormAct]], last: nn.Module, layout: Layout = WHOLE
) -> torch.Tensor:
    """1³ convolutions one after another without dropout, all in one pass; what they put into the padding is anything.

    Args:
        x: (B', C, *spatial).
        hidden: convolutions without bias, each with the norm and activation after it.
        last: a convolution whose result is the chain's.
        layout: how the voxels of ``x`` lie.

    Returns:
        (B', C', *spatial).
    """
    applies = pointwise.applies(x, last.get_parameter("weight"))
    layers = [pointwise.layer_of(conv, layer) for conv, layer in hidden] if applies else [None]
    if None not in layers:
        return pointwise.chain(x, [layer for layer in layers if layer is not None] + [pointwise.linear(last)])
    for conv, layer in hidden:
        x = conv_norm_act(x, conv, layer, layout)
    return last(x)


def add_channels(y: torch.Tensor, more: torch.Tensor, first: int = 0) -> torch.Tensor:
    """``y`` (B, C, *spatial) plus ``more`` (B, at most C, *spatial) in the channels from ``first`` on.

    In place; with gradients ``y`` must be a tensor that no backward pass needs.

    >>> add_channels(torch.ones(1, 4, 1), torch.ones(1, 2, 1), 1).flatten().tolist()
    [1.0, 2.0, 2.0, 1.0]
    """
    if _must_be_plain(y):
        return y.add_(_widened(more, y.shape[1], first))
    y.narrow(1, first, more.shape[1]).add_(more)
    return y


def _norm_act(x: torch.Tensor, layer: NormAct, layout: Layout) -> torch.Tensor:
    """`norm_act`; in evaluation on a GPU in one pass."""
    folded = fold(layer) if affine.fits(x) else None
    if folded is None:
        return norm_act(x, layer, layout)
    return affine.affine_act(x, *folded, _mask(layout))


def _convolved_act(
    conv: nn.Module, x: torch.Tensor, weight: torch.Tensor, folded: Folded, layer: NormAct, layout: Layout
) -> torch.Tensor:
    """act(conv(x) + shift) with other weights, zero in the padding; on a GPU all but the convolution in one pass."""
    if not affine.fits(x):
        return layout.clear(layer.activation(_convolve(conv, x, layout, weight, folded.shift)))
    y = _convolve(conv, x, layout, weight)
    if not affine.fits(y):  # of one channel the convolution may have put the channels first
        y = y.contiguous(memory_format=torch.channels_last if y.ndim == 4 else torch.channels_last_3d)
    return affine.affine_act(y, None, folded.shift, folded.slope, _mask(layout), in_place=True)


def _mask(layout: Layout) -> torch.Tensor | None:
    """1 inside the volumes and 0 outside; None where nothing lies outside."""
    return None if layout.padding is None else layout.padding.mask


def _must_be_plain(x: torch.Tensor) -> bool:
    """Whether gradients may be asked for: now, or of a program that is recorded, which is one whatever the mode."""
    return torch.is_grad_enabled() or is_exported(x)


def _widened(x: torch.Tensor, channels: int, first: int = 0) -> torch.Tensor:
    """``x`` (B, C, *spatial) with ``first`` channels of zeros before its own and as many after as make ``channels``."""
    if not torch.jit.is_tracing() and x.shape[1] == channels:
        return x
    return F.pad(x, [0, 0] * (x.ndim - 2) + [first, channels - x.shape[1] - first])


def _convolve(
    conv: nn.Module,
    x: torch.Tensor,
    layout: Layout,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``conv`` on ``x``, without its dilation on sub-lattices, with other weights if given."""
    weight = conv.get_parameter("weight") if weight is None else weight
    padding, dilation = _extent(conv, layout)
    if x.ndim == 4:
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)
    return conv3d(x, weight, bias, padding, dilation)


def _extent(conv: nn.Module, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding and dilation of ``conv``; on sub-lattices, where neighbours are a dilation apart already, without it."""
    assert isinstance(conv, (nn.Conv2d, nn.Conv3d))
    assert not isinstance(conv.padding, str)
    if not layout.on_lattices:
        return conv.padding, conv.dilation
    return tuple(p // d for p, d in zip(conv.padding, conv.dilation, strict=True)), (1,) * len(conv.dilation)


def _undilated(conv: nn.Module, layout: Layout) -> bool:
    """Whether this is a plain 3³ convolution of volumes, for its dilation or on sub-lattices."""
    return isinstance(conv, nn.Conv3d) and (layout.on_lattices or conv.dilation == (1, 1, 1))
