"""Volumes as the compiled kernels take them: voxels evenly strided in memory, the channels of each side by side.

A volume is a tensor of PyTorch like any other; these functions tell how it lies, or make one that lies well. Between
the channels of one voxel and those of the next there may be room, numbers that mean nothing: the kernels then read and
write whole vectors also of the last channels, and every voxel has cache lines of its own::

    5 channels, stride 8    | c0 c1 c2 c3 c4 -- -- -- | c0 c1 c2 c3 c4 -- -- -- | …
                            voxel (z, y, x)           voxel (z, y, x + 1)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from rarevox.networks.cpu.instructions.sizes import LANES, LINE_FLOATS, in_eights


def voxel_stride(x: torch.Tensor) -> int | None:
    """From one voxel of ``x`` (B, D, H, W, C) to the next, in numbers; None if they do not lie evenly.

    Where that is more than C, there is room for whole vectors after the channels of each, also of the last one.

    >>> voxel_stride(torch.empty(1, 2, 3, 4, 8)), voxel_stride(torch.empty(1, 2, 3, 4, 8)[..., :5])
    (8, 8)
    >>> voxel_stride(torch.empty(1, 5, 2, 3, 4).movedim(1, -1)), voxel_stride(torch.empty(1, 2, 3, 4, 8)[..., 3:])
    (None, None)
    """
    if not _side_by_side(x):
        return None
    stride = expected = x.stride(3)
    for axis in (3, 2, 1, 0):
        if x.shape[axis] > 1 and x.stride(axis) != expected:
            return None
        expected *= x.shape[axis]
    return stride


def _side_by_side(x: torch.Tensor) -> bool:
    """Whether the channels of every voxel of ``x`` (B, D, H, W, C) are, with nothing of another voxel in their room."""
    stride, channels = x.stride(3), x.shape[4]
    if (channels > 1 and x.stride(4) != 1) or stride < channels:
        return False
    # Some channels out of more: what follows them may be room, or the channels of the next voxel, which are no room.
    return stride == channels or x.storage_offset() % stride + in_eights(channels) <= stride


def part(x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """``x`` (B, C, D, H, W), also a box out of a volume, as (B, D, H, W, C); copied only if need be.

    Returns:
        It, and its strides from voxel to voxel, row to row, plane to plane and sample to sample, in numbers.

    >>> part(torch.zeros(1, 5, 6, 7, 8)[..., 1:3].contiguous(memory_format=torch.channels_last_3d)[..., 1:])[1]
    (5, 10, 70, 420)
    """
    last = x.detach().movedim(1, -1)
    # Across its voxels, not along them, a box could end within the room of the volume's last voxel.
    along = all(last.shape[axis] == 1 or last.stride(axis) % last.stride(3) == 0 for axis in range(3))
    last = last if along and _side_by_side(last) else last.contiguous()
    return last, tuple(last.stride(axis) for axis in (3, 2, 1, 0))


def voxels(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """``x`` (B, C, D, H, W) as (B, D, H, W, C) and its `voxel_stride`; copied only if need be."""
    last = x.detach().movedim(1, -1)
    stride = voxel_stride(last)
    return (last.contiguous(), x.shape[1]) if stride is None else (last, stride)


def numbers(shape: tuple[int, ...]) -> int:
    """How many numbers `channels_last` of a ``shape`` (B, C, D, H, W) lies in."""
    return math.prod((shape[0], _roomy_stride(shape[1]), *shape[2:]))


def _roomy_stride(channels: int) -> int:
    """The stride of voxels of so many channels: whole lines of the cache, for few channels whole vectors."""
    return in_eights(channels) if channels <= LANES else -(-channels // LINE_FLOATS) * LINE_FLOATS


def channels_last(shape: tuple[int, ...], memory: torch.Tensor) -> torch.Tensor:
    """A tensor (B, C, D, H, W) in the first numbers of ``memory``, channels last, with room for whole vectors of them.

    Those are read and written at once; above eight channels every voxel has lines of the cache of its own.

    >>> channels_last((1, 5, 2, 3, 4), torch.empty(200)).stride()
    (192, 1, 96, 32, 8)
    """
    # Non-temporal stores of a result need whole lines: `rarevox.networks.cpu.winograd.convolution.STREAM_BYTES`.
    whole = memory[: numbers(shape)].view(shape[0], *shape[2:], _roomy_stride(shape[1]))
    return whole[..., : shape[1]].movedim(-1, 1)


def lanes(parameters: torch.Tensor) -> torch.Tensor:
    """(n, C) as (eights, n, 8), zeros after the last channel."""
    padded = F.pad(parameters.detach().float(), (0, -parameters.shape[1] % LANES))
    return padded.unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()
