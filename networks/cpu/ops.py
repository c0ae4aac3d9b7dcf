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
from torch import nn

from rarevox.compiled import is_eager, is_exported
from rarevox.networks.cpu.convolution import (
    Conv3d,
    fused_conv3d,
    load_kernels,
    prefers_float32,
    use_fast_convolutions,
)
from rarevox.networks.cpu.fold import Folded, Kept, KeptWeight, fold
from rarevox.networks.cpu.fourier import WideConv2d, WideConv3d
from rarevox.networks.cpu.instructions.sizes import LANES
from rarevox.networks.cpu.instructions.sizes import PANEL as FAST_CHANNELS
from rarevox.networks.cpu.joint import beside, joint_layers
from rarevox.networks.cpu.norm import convolution as training
from rarevox.networks.cpu.plain import add_channels, convolve, extent, is_undilated, must_be_plain, with_channels
from rarevox.networks.cpu.planes import can_stream, in_planes
from rarevox.networks.cpu.pointwise import chain as pointwise
from rarevox.networks.cpu.spare import Spare
from rarevox.networks.cpu.wide import Wide, bytes_of, pointwise_convolution, widened_weight, widths
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.cuda import affine, channels
from rarevox.networks.cuda import norm as gpu_training
from rarevox.networks.cuda.channels import aligned
from rarevox.networks.cuda.launch import channels_last
from rarevox.networks.lattices.padding import WHOLE, Layout, update_running_statistics, zero_outside_
from rarevox.networks.lattices.side_by_side import clear_planes_, fill_planes_
from rarevox.networks.norms import norm_act
from rarevox.networks.protocols import NormAct

__all__ = [
    "FAST_CHANNELS",
    "Conv3d",
    "Kept",
    "Spare",
    "Wide",
    "WideConv2d",
    "WideConv3d",
    "add_channels",
    "aligned",
    "beside",
    "can_stream",
    "conv_norm_act",
    "in_planes",
    "joint_layers",
    "load_kernels",
    "norm_act_conv",
    "pointwise_chain",
    "pointwise_convolution",
    "prefers_float32",
    "residual_block",
    "takes_tiles",
    "use_fast_convolutions",
    "widths",
]

ResidualParts = tuple[NormAct, nn.Module, NormAct, nn.Module]
"""norm1 with its activation, conv1, norm2 with its activation, conv2."""


def takes_tiles(x: torch.Tensor) -> bool:
    """Whether 3³ convolutions of ``x`` (B, C, *spatial) and of the like of it may go through the kernels that compute
    tiles of 4³ voxels."""
    plain = x.ndim != 5 or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    return not plain and not must_be_plain(x) and is_eager(x) and winograd.kernels() is not None


def conv_norm_act(
    x: torch.Tensor,
    conv: nn.Module,
    layer: NormAct,
    layout: Layout = WHOLE,
    *,
    out: torch.Tensor | None = None,
    add: torch.Tensor | None = None,
    wide: Wide | None = None,
    kept: Kept | None = None,
) -> torch.Tensor:
    """act(norm(conv(x))) + add, zero in the padding.

    Args:
        x: (B', C, *spatial).
        conv: a convolution without bias and with stride 1; on sub-lattices its dilation is left out.
        layer: norm and activation.
        layout: how the voxels of ``x`` lie.
        out: without gradients, what the result is written to: channels last, sharing no memory with ``x`` or ``add``.
        add: (B', at most C', *spatial'), added to the first channels.
        wide: that channels of zeros may follow those of ``x``, ``add`` and the result.
        kept: in evaluation, what earlier calls of one pass folded, and where this one leaves it.

    Returns:
        (B', C', *spatial').
    """
    known = None if kept is None else kept.get(conv)
    folded = None if must_be_plain(x) else fold(layer) if known is None else known.folded
    if folded is None:
        return _conv_norm_act_in_training(x, conv, layer, layout, out, add, wide)
    weight = _folded_weight(conv, x, folded, wide) if known is None else known.weight
    if kept is not None:
        kept[conv] = KeptWeight(weight, folded)
    padding, dilation = extent(conv, layout)
    if x.ndim == 5 and not any(d > 1 for d in dilation) and winograd.pays(x, weight, padding):
        y = fused_conv3d(x, weight, padding[0], bias=folded.shift, slope=folded.slope, out=out, add=add)
        return layout.clear(y)
    y = _convolved_act(conv, x, weight, folded, layer, layout, add)
    return y if out is None else out.copy_(y)


def _folded_weight(conv: nn.Module, x: torch.Tensor, folded: Folded, wide: Wide | None) -> torch.Tensor:
    """The convolution's weights with the norm's scale, and with zeros where ``x`` has them."""
    weight = conv.get_parameter("weight")
    return widened_weight(weight * folded.scale.view(-1, *(1,) * (weight.ndim - 1)), x, wide)


def _conv_norm_act_in_training(
    x: torch.Tensor,
    conv: nn.Module,
    layer: NormAct,
    layout: Layout,
    out: torch.Tensor | None,
    add: torch.Tensor | None,
    wide: Wide | None,
) -> torch.Tensor:
    """`conv_norm_act` by the definition, the norm in few passes where a GPU has kernels for it."""
    weight: torch.Tensor = conv.get_parameter("weight")
    out_channels = weight.shape[0]
    if wide is not None and channels.pay(x):
        # Zeros come out where the norm is to be done by kernels alone, which leave them zero.
        more = gpu_training.knows(layer.norm, layer.activation) and gpu_training.is_large(bytes_of(conv, x, layout))
        weight = widened_weight(weight, x, wide if more else wide._replace(out=False))
    y = convolve(conv, x, layout, weight)
    if y.is_cuda and x.shape[1] == 1 and gpu_training.knows(layer.norm, layer.activation):
        y = y.contiguous(memory_format=channels_last(y))  # one channel has no order of the axes
    if _is_one_step(y, layer, layout):
        at_once = out is None and layout.padding is None
        y = _one_step(y, layer, layout, add if at_once else None)
        add = None if at_once else add
    else:
        if wide is not None and not is_exported(x) and y.shape[1] > out_channels:
            y = y.narrow(1, 0, out_channels)
        y = norm_act(layout.clear(y), layer, layout)
    y = y if out is None else out.copy_(y)
    if add is None:
        return y
    return y + with_channels(add, y.shape[1]) if must_be_plain(x) else add_channels(y, add)


def norm_act_conv(
    x: torch.Tensor, layer: NormAct, conv: nn.Module, layout: Layout = WHOLE, add: torch.Tensor | None = None
) -> torch.Tensor:
    """conv(act(norm(x))) + add; in training on the CPU one step that keeps ``x`` alone.

    Zero in the padding, unless the next norm like this one leaves the padding out by itself.

    Args:
        x: (B', C, *spatial), zero in the padding or left there by this function.
        layer: norm and activation; in training the running statistics of a batch norm are updated.
        conv: a convolution without bias that keeps the size; on sub-lattices its dilation is left out.
        layout: how the voxels of ``x`` lie.
        add: (B', at most C', *spatial), added to the channels in the middle.

    Returns:
        (B', C', *spatial).
    """
    first = 0 if add is None else (conv.get_parameter("weight").shape[0] - add.shape[1]) // 2
    if not (is_undilated(conv, layout) and training.fits(x, layer, conv.get_parameter("weight"), add, first)):
        y = convolve(conv, _norm_act(x, layer, layout), layout)
        # The norm after it reads nothing outside where it is done in one step, as this one is.
        y = y if _is_one_step(y, layer, layout) else layout.clear(y)
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
    fits = spare is not None and aligned and is_undilated(conv1, layout) and winograd.pays(x, weight1, (1, 1, 1))
    first, second = (fold(norm1), fold(norm2)) if fits else (None, None)
    zero = None if first is None or not layout.planes else _before_zero(first)
    if spare is None or first is None or second is None or (layout.planes and zero is None):
        between = conv_norm_act(_norm_act(x, norm1, layout), conv1, norm2, layout)
        y = layout.clear(convolve(conv2, between, layout))
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


def _norm_act(x: torch.Tensor, layer: NormAct, layout: Layout) -> torch.Tensor:
    """`norm_act`; on a GPU in one pass in evaluation, in few in training."""
    if _is_one_step(x, layer, layout):
        return _one_step(x, layer, layout)
    folded = fold(layer) if affine.fits(x) else None
    if folded is None:
        return norm_act(x, layer, layout)
    return affine.affine_act(x, *folded, _mask(layout))


def _is_one_step(x: torch.Tensor, layer: NormAct, layout: Layout) -> bool:
    """Whether norm and activation, in training on a GPU, are kernels that read nothing outside the volumes."""
    return gpu_training.fits(x, layer.norm, layer.activation, layout.padding is not None)


def _one_step(x: torch.Tensor, layer: NormAct, layout: Layout, add: torch.Tensor | None = None) -> torch.Tensor:
    """act(norm(x)) + add by these kernels, zero outside."""
    inside = None if layout.padding is None else layout.padding.inside
    return gpu_training.norm_act(x, layer.norm, layer.activation, _mask(layout), inside, add)


def _convolved_act(
    conv: nn.Module,
    x: torch.Tensor,
    weight: torch.Tensor,
    folded: Folded,
    layer: NormAct,
    layout: Layout,
    add: torch.Tensor | None,
) -> torch.Tensor:
    """act(conv(x) + shift) + add, zero in the padding; on a GPU all but the convolution in one pass."""
    if not affine.works(x):
        y = layout.clear(layer.activation(convolve(conv, x, layout, weight, folded.shift)))
        return y if add is None else add_channels(y, add)
    y = convolve(conv, x, layout, weight)
    y = y.contiguous(memory_format=channels_last(y))  # of one channel the convolution may have put the channels first
    added = None if add is None else affine.Added(add)
    return affine.affine_act(y, None, folded.shift, folded.slope, _mask(layout), added, in_place=True)


def _mask(layout: Layout) -> torch.Tensor | None:
    """1 inside the volumes and 0 outside; None where nothing lies outside."""
    return None if layout.padding is None else layout.padding.mask
