"""Float32 convolutions of 3³ on the CPU for an eighth of the multiplications (Winograd's minimal filtering).

A CPU without matrix units is bound by its multiplications, and PyTorch's 3³ convolution does 27 of them for each
voxel and pair of channels. F(4×4×4, 3×3×3) does 3.4: windows of 6³ voxels, 4 apart, go into a domain where the
convolution is a product of 216 matrices over the channels, and come back as blocks of 4³. The weights' gradient is the
transposed algorithm, in the same domain. The result differs from the plain sum by rounding alone, 1.2e-6 to 2.0e-6 of
its own size in root mean square with 16 to 64 channels, where a plain sum in vectors has 2.3e-7 (see `toom_cook`).

A thread takes a few tiles of all channels at a time, so that they stay in its own cache on the way through the domain;
what comes before and after a convolution, norm, activation, bias and sum, is fused into that way. The extra memory is
one to two megabytes a thread. Needs Numba; without it, or where it does not pay, `rarevox.networks.cpu.convolution`
takes PyTorch's convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from rarevox.compiled import compiled_module, is_eager, share_out
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LINE_BYTES, LINE_FLOATS, PANEL
from rarevox.networks.cpu.volumes import in_eights, lanes, part, voxel_stride, voxels
from rarevox.networks.cpu.winograd import job
from rarevox.networks.cpu.winograd.operands import address_of, extent_table, input_fields, output_fields
from rarevox.networks.cpu.winograd.plan import Plan, kept_memory, memory_of_pass
from rarevox.networks.cpu.winograd.toom_cook import PLACES, TAPS, TILE

# Below, carrying the weights into the domain costs what the products save: forward and backward of 16, 32 and 64
# channels had 1.1 to 1.6 times the speed of the plain convolution (with AVX-512) at 1728 to 2048 voxels, and 0.6 to 1.3
# at 512.
LEAST_VOXELS = 1700
# Voxels that whole tiles compute for each one that is asked for, at most: at 2.2 to 2.4 forward and backward had 1.1 to
# 1.8 times the speed of the plain convolution with 32 and 64 channels and 0.9 to 1.0 times with 16, at 3.4 and 4.1 0.7
# to 1.0 times.
MOST_COMPUTED, MOST_COMPUTED_OF_FEW, FEW_CHANNELS = 2.5, 2, 32
# Input times output channels with fewer than 16 of the former: 0.6 times the time of the plain one with 2 and 30
# channels, 0.3 with 4 and 30, but 1.6 with 2 and 16.
LEAST_FEW = 60
# Bytes of tiles that a thread has in the domain at once, about a second-level cache of 1 MB: with 700 KB convolutions
# of 30 to 64 channels took 2 % longer in the median (0 to 8), with 1.8 MB as long or up to 9 % longer.
NEAR_BYTES = 1000 * 2**10
# The same for the gradient of the weights, where more tiles save more sums than the further cache costs.
NEAR_BYTES_OF_SUMS = 2 * 2**20
# A larger result is written past the caches, so that its lines are not read from memory first: whole scans and training
# steps took 5 to 10 % longer without, and no less with 8 to 32 MB.
STREAM_BYTES = 2**21
# What the threads' own sums of that gradient should take together; beyond, fewer threads, two at least, share the work.
MOST_BYTES_OF_SUMS = 2**28


def kernels() -> ModuleType | None:
    """The compiled part; None without Numba, or where it can keep no compiled code."""
    return compiled_module("rarevox.networks.cpu.winograd.kernels")


def pays(x: torch.Tensor, weight: torch.Tensor, padding: tuple[int, ...]) -> bool:
    """Whether `conv3d` is faster than the plain convolution of ``x`` (B, C, D, H, W) with ``weight`` (C', C, k, k, k).

    It is in float32 on the CPU with 16 channels or more, with voxels enough, at sizes that blocks of 4³ fill by half
    (from 32 channels on by two fifths); without gradients with fewer input channels too, of a scan's own, if many come
    out.
    """
    if x.ndim != 5 or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return False
    if not is_eager(x, weight):  # asked before sizes are: a program that is recorded must decide nothing by them
        return False
    few = weight.ndim == 5 and weight.shape[1] < PANEL
    if (
        weight.shape[2:] != (3, 3, 3)
        or weight.shape[0] < PANEL
        or (few and (torch.is_grad_enabled() or weight.shape[0] * weight.shape[1] < LEAST_FEW))
        or len(set(padding)) != 1
        or padding[0] > 2
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    sizes = [length + 2 * padding[0] - 2 for length in x.shape[2:]]
    if min(sizes) < 1 or x.shape[0] * math.prod(sizes) < LEAST_VOXELS:
        return False
    computed = math.prod(TILE * -(-length // TILE) for length in sizes)
    most = MOST_COMPUTED if min(weight.shape[:2]) >= FEW_CHANNELS else MOST_COMPUTED_OF_FEW
    return computed <= most * math.prod(sizes) and kernels() is not None


def conv3d(x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    """`torch.nn.functional.conv3d` with stride 1 and a 3³ kernel.

    Args:
        x: (B, C, D, H, W), float32 on the CPU.
        weight: (C', C, 3, 3, 3).
        padding: zeros at every face, 0 to 2.

    Returns:
        (B, C', D + 2·padding − 2, …), channels last in memory.

    >>> x, weight = torch.randn(1, 8, 7, 5, 6), torch.randn(9, 8, 3, 3, 3)
    >>> kernels() is None or torch.allclose(conv3d(x, weight, 1), torch.conv3d(x, weight, padding=1), atol=1e-4)
    True
    """
    return _Winograd.apply(x, weight, padding)


@dataclass(frozen=True)
class Around:
    """What is fused into a convolution: its prologue, on the voxels' way in, and its epilogue, on their way out.

    Args:
        norm: (3, C), scale, shift and slope of the input: v enters as a = v · scale + shift where that is positive, and
            as a · slope elsewhere.
        bias: (2, C'), bias and slope of the output in the same way.
        add: a volume of the output's size, or a box of that size out of one, whose channels are added to those of the
            output from ``first`` on; it may be the very memory that is written to, and share none with it otherwise.
        first: a multiple of 8, as the number of channels of ``add`` is, unless these are all.
        extents: (B, 3), how much of each sample lies inside: the rest reads as zero and is written as zero.
    """

    norm: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    add: torch.Tensor | None = None
    first: int = 0
    extents: torch.Tensor | None = None


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return convolve(x, weight, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = convolve(gradients[0], weight, TILE // 2 - ctx.padding, transposed=True)
        if ctx.needs_input_grad[1]:
            dw = weight_gradient(x, gradients[0], ctx.padding)
        return dx, dw, None


def _filters(weight: torch.Tensor, transposed: bool) -> torch.Tensor:
    """``weight`` (C', C, 3, 3, 3) in the domain, (panels, 216, C in eights, 16): 16 output channels to a panel.

    ``transposed`` takes the filters of the gradient: channels changed about, every axis reversed.
    """
    weight = weight.detach()
    address, strides = weight.data_ptr(), [FLOAT_BYTES * stride for stride in weight.stride()]
    out_channels, in_channels = weight.shape[:2]
    if transposed:
        # No copy is turned about: the kernel begins at the last tap and goes backwards.
        out_channels, in_channels = in_channels, out_channels
        address += (TAPS - 1) * sum(strides[2:])
        strides = [strides[1], strides[0], *(-stride for stride in strides[2:])]
    filters = torch.empty((-(-out_channels // PANEL), PLACES, in_eights(in_channels), PANEL))
    out_stride, in_stride, depth_stride, height_stride, width_stride = strides
    carry = job.CarryFilters(
        weight=address,
        filters=filters.data_ptr(),
        in_channels=in_channels,
        out_channels=out_channels,
        out_stride_bytes=out_stride,
        in_stride_bytes=in_stride,
        depth_stride_bytes=depth_stride,
        height_stride_bytes=height_stride,
        width_stride_bytes=width_stride,
    )
    _run("carry_filters", carry)
    return filters


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    padding: int,
    around: Around = Around(),
    *,
    transposed: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`conv3d` without a gradient, with what is ``around`` it.

    Args:
        x: (B, C, D, H, W), float32 on the CPU.
        weight: (C', C, 3, 3, 3).
        padding: zeros at every face, 0 to 2.
        around: done on the way.
        transposed: convolve with the weights of the gradient, (C, C', 3, 3, 3) for such a ``weight``.
        out: the memory to write to, of the result's shape, channels last; it must share none with ``x``. The voxels
            may have a larger stride than their channels (`rarevox.networks.cpu.volumes`): what is between is
            overwritten.

    Returns:
        (B, C', D + 2·padding − 2, …), channels last in memory.
    """
    (source, in_stride), filters = voxels(x), _filters(weight, transposed)
    out_channels, in_channels = weight.shape[1 if transposed else 0], source.shape[-1]
    size = [length + 2 * padding - 2 for length in x.shape[2:]]
    if out is None:
        out = torch.empty((x.shape[0], out_channels, *size), memory_format=torch.channels_last_3d)
    target = out.movedim(1, -1)
    out_stride = voxel_stride(target)
    assert out_stride is not None, "out must be channels last"
    tile_bytes = FLOAT_BYTES * in_eights(in_channels)
    plan = Plan(target, NEAR_BYTES // (PLACES * tile_bytes))
    domain_bytes = plan.domain_bytes(tile_bytes, FLOAT_BYTES * PANEL)
    domain, threads = kept_memory(plan.threads * domain_bytes), torch.zeros(1, dtype=torch.int64)
    norm, bias = (None if one is None else lanes(one) for one in (around.norm, around.bias))
    add, add_strides = (None, (0,) * 4) if around.add is None else part(around.add)
    add_channels = 0 if add is None else add.shape[-1]
    extents = extent_table(around.extents)
    # What is written past the caches takes no line from memory first; half a line of it would take more than one.
    whole = add is None or add_strides[0] >= in_eights(add_channels)
    lines = out_stride % LINE_FLOATS == 0 and target.data_ptr() % LINE_BYTES == 0
    convolution = job.Convolve(
        **input_fields(source, in_stride, padding, norm, extents),
        filters=filters.data_ptr(),
        target=target.data_ptr(),
        **output_fields(target),
        out_stride=out_stride,
        stream=int(lines and whole and FLOAT_BYTES * target.numel() > STREAM_BYTES),
        bias=address_of(bias),
        add=address_of(add),
        add_first=around.first,
        add_channels=add_channels,
        add_voxel_stride=add_strides[0],
        add_row_stride=add_strides[1],
        add_plane_stride=add_strides[2],
        add_sample_stride=add_strides[3],
        tiles=plan.tiles,
        group=plan.group,
        domain=domain.data_ptr(),
        domain_bytes=domain_bytes,
        threads=threads.data_ptr(),
    )
    _run("convolve", convolution)
    return out


def weight_gradient(
    x: torch.Tensor,
    gradient: torch.Tensor,
    padding: int,
    norm: torch.Tensor | None = None,
    extents: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient (C', C, 3, 3, 3) of the weights.

    Args:
        x: what was convolved, (B, C, D, H, W), float32 on the CPU.
        gradient: of the result, (B, C', D + 2·padding − 2, …).
        padding: zeros at every face, 0 to 2.
        norm: what ``x`` went through on its way (`Around`).
        extents: what of each sample of ``x`` lay inside (`Around`).
    """
    source, incoming = (one.detach().movedim(1, -1).contiguous() for one in (x, gradient))
    in_channels, out_channels = source.shape[-1], incoming.shape[-1]
    in_rounded, out_rounded = in_eights(in_channels), in_eights(out_channels)
    # The sums are added up slot by slot at the end. How many slots there are decides the order of the sums, not which
    # thread was faster, so that a run that goes on after a kill repeats the uninterrupted one to the bit.
    sums_bytes = FLOAT_BYTES * PLACES * in_rounded * out_rounded
    tile_bytes = FLOAT_BYTES * in_rounded, FLOAT_BYTES * out_rounded
    plan = Plan(incoming, NEAR_BYTES_OF_SUMS // (PLACES * sum(tile_bytes)), max(2, MOST_BYTES_OF_SUMS // sums_bytes))
    slots, domain_bytes = plan.threads, plan.domain_bytes(*tile_bytes)
    domain = kept_memory(slots * domain_bytes)
    sums = memory_of_pass(slots * sums_bytes)[: slots * sums_bytes].view(torch.float32).zero_()
    normed, inside = None if norm is None else lanes(norm), extent_table(extents)
    correlation = job.Correlate(
        **input_fields(source, in_channels, padding, normed, inside),
        gradient=incoming.data_ptr(),
        **output_fields(incoming),
        sums=sums.data_ptr(),
        tiles=plan.tiles,
        group=plan.group,
        domain=domain.data_ptr(),
        domain_bytes=domain_bytes,
        slots=slots,
    )
    _run("correlate", correlation)
    result = torch.empty((out_channels, in_channels, TAPS, TAPS, TAPS))
    carry = job.CarryGradient(
        sums=sums.data_ptr(),
        gradient=result.data_ptr(),
        slots=slots,
        in_channels=in_channels,
        out_channels=out_channels,
    )
    _run("carry_gradient", carry)
    return result


def _run(kernel: str, job: Iterable[int]) -> None:
    """A job of `rarevox.networks.cpu.winograd.kernels`, its pieces shared out to PyTorch's threads."""
    share_out(getattr(kernels(), kernel).address, job)
