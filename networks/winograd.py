"""Float32 convolutions of 3³ on the CPU for an eighth of the multiplications (Winograd's minimal filtering).

A CPU without matrix units is bound by its multiplications, and PyTorch's 3³ convolution does 27 of them for each
voxel and pair of channels. F(4×4×4, 3×3×3) does 3.4: windows of 6³ voxels, 4 apart, go into a domain where the
convolution is a product of 216 matrices over the channels, and come back as blocks of 4³. The weights' gradient is the
transposed algorithm, in the same domain. The result differs from the plain sum by rounding alone, about twice that of
the plain sum (see `networks.toom_cook`).

The volume goes through in blocks whose tiles stay near the cores, so the extra memory, `BLOCK_BYTES`, does not grow
with the volume. Needs Numba; without it, or where it does not pay, `networks.convolution` takes PyTorch's convolution.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from compiled import compiled_module, share_out
from networks.toom_cook import FILTER

TILE, PLACES = 4, 216
PANEL, LANES = 16, 8
# Below, carrying the weights into the domain costs what the products save: forward and backward of 16 to 128 channels
# have 0.6 to 1.4 times the speed of the plain convolution at 1024 to 2048 voxels, 1.0 to 2.9 times at 8192.
LEAST_VOXELS = 4096
BLOCK_BYTES = 48 * 2**20
_memory = threading.local()


def kernels() -> ModuleType | None:
    """The compiled part; None without Numba, or where it can keep no compiled code."""
    return compiled_module("networks.winograd_tiles")


def pays(x: torch.Tensor, weight: torch.Tensor, padding: tuple[int, ...]) -> bool:
    """Whether `conv3d` is faster than the plain convolution of ``x`` (B, C, D, H, W) with ``weight`` (C', C, k, k, k).

    It is in float32 on the CPU with 16 channels or more, with voxels enough, at sizes that blocks of 4³ fill by half.
    """
    if (
        x.ndim != 5
        or x.device.type != "cpu"
        or not x.dtype == weight.dtype == torch.float32
        or weight.shape[2:] != (3, 3, 3)
        or min(weight.shape[:2]) < PANEL
        or len(set(padding)) != 1
        or padding[0] > 2
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    sizes = [length + 2 * padding[0] - 2 for length in x.shape[2:]]
    if min(sizes) < 1 or x.shape[0] * math.prod(sizes) < LEAST_VOXELS:
        return False
    computed = math.prod(TILE * -(-length // TILE) for length in sizes)
    return computed <= 2 * math.prod(sizes) and kernels() is not None


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


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return _convolve(x, weight, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = _convolve(gradients[0], weight.transpose(0, 1).flip(2, 3, 4), TILE // 2 - ctx.padding)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(x, gradients[0], ctx.padding)
        return dx, dw, None


@functools.cache
def _filter_matrix() -> torch.Tensor:
    """FILTER along each axis, (216, 27)."""
    return torch.from_numpy(np.kron(FILTER, np.kron(FILTER, FILTER))).float()


def _in_eights(channels: int) -> int:
    return -(-channels // LANES) * LANES


def _volume(x: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) as (B, D, H, W, C), dense."""
    return x.detach().movedim(1, -1).contiguous()


def _filters(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` (C', C, 3, 3, 3) in the domain, (216, panels, C in eights, 16): 16 output channels to a panel."""
    channels_out, channels_in = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 4, 1, 0).reshape(27, channels_in, channels_out)
    taps = F.pad(taps, (0, -channels_out % PANEL, 0, -channels_in % LANES))
    taps = taps.view(27, taps.shape[1], -1, PANEL).transpose(1, 2)
    return (_filter_matrix() @ taps.reshape(27, -1)).view(PLACES, *taps.shape[1:])


def _convolve(x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    source, filters = _volume(x), _filters(weight)
    size = [length + 2 * padding - 2 for length in x.shape[2:]]
    result = torch.empty((x.shape[0], weight.shape[0], *size), memory_format=torch.channels_last_3d)
    target = result.movedim(1, -1)
    for block in _blocks(source, target):
        before, after = block.tiles(0, source), block.tiles(1, target)
        block.run("analyse", source, before, padding)
        _multiply(before, filters, after)
        block.run("synthesise", target, after, 0)
    return result


def _weight_gradient(x: torch.Tensor, gradient: torch.Tensor, padding: int) -> torch.Tensor:
    source, incoming = _volume(x), _volume(gradient)
    channels_in, channels_out = source.shape[-1], incoming.shape[-1]
    total = source.new_zeros((PLACES, _in_eights(channels_in), _in_eights(channels_out)))
    for block in _blocks(source, incoming):
        before, after = block.tiles(0, source), block.tiles(1, incoming)
        block.run("analyse", source, before, padding)
        block.run("spread", incoming, after, 0)
        _correlate(before, after, total)
    taps = (_filter_matrix().T @ total.flatten(1)).view(3, 3, 3, *total.shape[1:])
    return taps[..., :channels_in, :channels_out].permute(4, 3, 0, 1, 2).contiguous()


class _Block:
    """Rows of tiles of an output volume, [first, last), that go through the domain together.

    Args:
        counts: tiles along D, H and W.
        first, last: rows of tiles, counted over samples, D and H.
    """

    def __init__(self, counts: tuple[int, ...], first: int, last: int) -> None:
        self.counts, self.first, self.last = counts, first, last
        self.used = (last - first) * counts[2]
        # The products take six tiles at a time. An odd number of sixes: with a power of two the 216 places of a tile
        # would share a few sets of the cache, and the way into the domain would take three times as long.
        self.allotted = 6 * (-(-self.used // 6) | 1)

    def tiles(self, which: int, volume: torch.Tensor) -> torch.Tensor:
        """The domain of ``volume`` (B, D, H, W, C), (216, tiles, C in eights), in this thread's memory ``which``."""
        channels = _in_eights(volume.shape[-1])
        length = PLACES * self.allotted * channels
        memory = getattr(_memory, f"part{which}", None)
        if memory is None or memory.numel() < length:
            memory = torch.empty(length)
            setattr(_memory, f"part{which}", memory)
        tiles = memory[:length].view(PLACES, self.allotted, channels)
        tiles[:, self.used :] = 0
        return tiles

    def run(self, task: str, volume: torch.Tensor, tiles: torch.Tensor, padding: int) -> None:
        """A task of `networks.winograd_tiles` between ``volume`` (B, D, H, W, C) and ``tiles``."""
        sizes = (*volume.shape[1:], *self.counts, padding, self.allotted, self.first, self.last)
        _run(task, (volume.data_ptr(), tiles.data_ptr(), *sizes), self.first)


def _multiply(tiles: torch.Tensor, filters: torch.Tensor, out: torch.Tensor) -> None:
    """``out`` (216, T, C') = ``tiles`` (216, T, C) · ``filters`` (216, panels, C, 16)."""
    _run("multiply", (tiles.data_ptr(), filters.data_ptr(), out.data_ptr(), *tiles.shape[1:], out.shape[2]), 0)


def _correlate(before: torch.Tensor, after: torch.Tensor, total: torch.Tensor) -> None:
    """``total`` (216, C, C') += ``before`` (216, T, C), transposed, · ``after`` (216, T, C')."""
    sizes = (*before.shape[1:], after.shape[2])
    _run("correlate", (before.data_ptr(), after.data_ptr(), total.data_ptr(), *sizes), 0)


def _run(task: str, values: tuple[int, ...], start: int) -> None:
    """A task of `networks.winograd_tiles`, its pieces shared out from number ``start`` on."""
    share_out(getattr(kernels(), task).address, values, start)


def _blocks(source: torch.Tensor, target: torch.Tensor) -> list[_Block]:
    """The tiles of ``target`` (B, D, H, W, C') in blocks that take `BLOCK_BYTES` in both domains."""
    counts = tuple(-(-length // TILE) for length in target.shape[1:4])
    rows = target.shape[0] * counts[0] * counts[1]
    row_bytes = 4 * PLACES * counts[2] * (_in_eights(source.shape[-1]) + _in_eights(target.shape[-1]))
    pieces = -(-rows // max(1, BLOCK_BYTES // row_bytes))
    edges = [rows * piece // pieces for piece in range(pieces + 1)]
    return [_Block(counts, a, b) for a, b in itertools.pairwise(edges)]
