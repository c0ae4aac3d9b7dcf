"""Float32 convolutions of 3³ on the CPU for an eighth of the multiplications (Winograd's minimal filtering).

A CPU without matrix units is bound by its multiplications, and PyTorch's 3³ convolution does 27 of them for each
voxel and pair of channels. F(4×4×4, 3×3×3) does 3.4: windows of 6³ voxels, 4 apart, go into a domain where the
convolution is a product of 216 matrices over the channels, and come back as blocks of 4³. The weights' gradient is the
transposed algorithm, in the same domain. The result differs from the plain sum by rounding alone, about twice that of
the plain sum (see `rarevox.networks.cpu.winograd.toom_cook`).

A thread takes a few tiles of all channels at a time, so that they stay in its own cache on the way through the domain;
what comes before and after a convolution, norm, activation, bias and sum, is done on that way. The extra memory is one
to two megabytes a thread. Needs Numba; without it, or where it does not pay, `rarevox.networks.cpu.convolution` takes
PyTorch's convolution.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from rarevox.compiled import compiled_module, share_out
from rarevox.networks.cpu.volumes import apart, in_eights, lanes, part, voxels

TILE, PLACES = 4, 216
PANEL, FEW, LINE = 16, 6, 64
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
# A larger result is written past the caches, so that its lines are not read from memory first: whole scans and training
# steps took 5 to 10 % longer without, and no less with 8 to 32 MB.
STREAM_BYTES = 2**21
# The same for the gradient of the weights, where more tiles save more sums than the further cache costs.
NEAR_BYTES_OF_SUMS = 2 * 2**20
# What the threads' own sums of that gradient may take together; beyond, fewer threads share the work.
MOST_BYTES_OF_SUMS = 2**28
_memory = threading.local()


def kernels() -> ModuleType | None:
    """The compiled part; None without Numba, or where it can keep no compiled code."""
    return compiled_module("rarevox.networks.cpu.winograd.kernels")


def pays(x: torch.Tensor, weight: torch.Tensor, padding: tuple[int, ...]) -> bool:
    """Whether `conv3d` is faster than the plain convolution of ``x`` (B, C, D, H, W) with ``weight`` (C', C, k, k, k).

    It is in float32 on the CPU with 16 channels or more, with voxels enough, at sizes that blocks of 4³ fill by half
    (from 32 channels on by two fifths); without gradients with fewer input channels too, of a scan's own, if many come
    out.
    """
    few = weight.ndim == 5 and weight.shape[1] < PANEL
    if (
        x.ndim != 5
        or x.device.type != "cpu"
        or not x.dtype == weight.dtype == torch.float32
        or weight.shape[2:] != (3, 3, 3)
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
    """What is done to the voxels on their way into a convolution and out of it, in evaluation.

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
    address, strides = weight.data_ptr(), [4 * step for step in weight.stride()]
    columns, channels = weight.shape[:2]
    if transposed:
        columns, channels = channels, columns
        address += 2 * sum(strides[2:])
        strides = [strides[1], strides[0], *(-step for step in strides[2:])]
    filters = torch.empty((-(-columns // PANEL), PLACES, in_eights(channels), PANEL))
    _run("carry_filters", (address, filters.data_ptr(), columns, channels, *strides))
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
            may lie further apart than they have channels (`rarevox.networks.cpu.volumes`): what is between is
            overwritten.

    Returns:
        (B, C', D + 2·padding − 2, …), channels last in memory.
    """
    (source, step), filters = voxels(x), _filters(weight, transposed)
    columns = weight.shape[1 if transposed else 0]
    size = [length + 2 * padding - 2 for length in x.shape[2:]]
    if out is None:
        out = torch.empty((x.shape[0], columns, *size), memory_format=torch.channels_last_3d)
    target = out.movedim(1, -1)
    step_out = apart(target)
    assert step_out is not None, "out must be channels last"
    deep = in_eights(source.shape[-1])
    plan = _Plan(target, NEAR_BYTES // (4 * PLACES * deep))
    scratch, slot_bytes = plan.memory("tiles", 4 * deep, 4 * PANEL)
    slots = torch.zeros(1, dtype=torch.int64)
    norm, bias = (None if one is None else lanes(one) for one in (around.norm, around.bias))
    add, others = (None, (0,) * 4) if around.add is None else part(around.add)
    values = [source.data_ptr(), target.data_ptr(), filters.data_ptr()]
    values += [0 if one is None else one.data_ptr() for one in (norm, bias, add)]
    sizes = (*source.shape[1:], *target.shape[1:])
    # What is written past the caches takes no line from memory first; half a line of it would take more than one.
    whole = add is None or others[0] >= in_eights(add.shape[-1])
    lines = step_out % PANEL == 0 and target.data_ptr() % LINE == 0
    stream = lines and whole and 4 * target.numel() > STREAM_BYTES
    added = (around.first, 0 if add is None else add.shape[-1])
    rest = (*added, padding, plan.total, plan.group, step, step_out, *others, stream)
    inside = _numbers(around.extents)
    _run("convolve", (*values, *sizes, *rest, scratch, slot_bytes, slots.data_ptr(), len(inside), *inside))
    return out


def _numbers(extents: torch.Tensor | None) -> list[int]:
    """The extents of all samples in a row; none where all is inside."""
    return [] if extents is None else extents.flatten().tolist()


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
    channels, columns = source.shape[-1], incoming.shape[-1]
    deep, wide = in_eights(channels), in_eights(columns)
    length = PLACES * deep * wide
    slots = max(2, MOST_BYTES_OF_SUMS // (4 * length))
    plan = _Plan(incoming, NEAR_BYTES_OF_SUMS // (4 * PLACES * (deep + wide)), slots)
    scratch, slot_bytes = plan.memory("tiles", 4 * deep, 4 * wide)
    length *= plan.threads
    sums = _kept("sums", 4 * length)[: 4 * length].view(torch.float32).zero_()
    sizes = (*source.shape[1:], *incoming.shape[1:])
    normed = None if norm is None else lanes(norm)
    volumes = (source.data_ptr(), incoming.data_ptr(), sums.data_ptr(), 0 if normed is None else normed.data_ptr())
    rest = (padding, plan.total, plan.group, scratch, slot_bytes, plan.threads)
    inside = _numbers(extents)
    _run("correlate", (*volumes, *sizes, *rest, len(inside), *inside))
    result = torch.empty((columns, channels, 3, 3, 3))
    _run("carry_gradient", (sums.data_ptr(), result.data_ptr(), plan.threads, channels, columns))
    return result


class _Plan:
    """How the tiles of a volume are shared out.

    Args:
        target: (B, D, H, W, C), the volume that the tiles of 4³ voxels cover.
        most: tiles that a thread should take at a time at most.
        threads: that may take part, at most.
    """

    def __init__(self, target: torch.Tensor, most: int, threads: int | None = None) -> None:
        self.threads = min(torch.get_num_threads(), threads or torch.get_num_threads())
        self.total = target.shape[0] * math.prod(-(-length // TILE) for length in target.shape[1:4])
        # The products take six tiles at a time; every thread should have two groups at least.
        self.group = max(1, min(most // FEW, -(-self.total // (2 * self.threads * FEW)))) * FEW

    def memory(self, name: str, *pitches: int) -> tuple[int, int]:
        """The address of memory for one domain for each of ``pitches`` (bytes a tile), and its bytes for each thread.

        The places lie an odd number of lines of the cache apart (as in `rarevox.networks.cpu.winograd.kernels`): with a
        power of two those of one tile would share a few sets of the cache, and the way there would take three times as
        long.
        """
        slot = sum(PLACES * LINE * (-(-self.group * pitch // LINE) | 1) for pitch in pitches)
        return _kept(name, slot * self.threads).data_ptr(), slot


def _kept(name: str, length: int) -> torch.Tensor:
    """Memory of this Python thread under a name, at least so many bytes, on a line of the cache."""
    memory = getattr(_memory, name, None)
    if memory is None or memory.numel() < length:
        memory = torch.empty(length + LINE, dtype=torch.uint8)
        memory = memory[-memory.data_ptr() % LINE :]
        setattr(_memory, name, memory)
    return memory


def _run(task: str, values: tuple[int, ...]) -> None:
    """A task of `rarevox.networks.cpu.winograd.kernels`, its pieces shared out."""
    share_out(getattr(kernels(), task).address, values)
