"""Volumes as the compiled kernels take them: voxels evenly apart in memory, the channels of each side by side."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

LANES, LINE = 8, 16


def in_eights(channels: int) -> int:
    """So many channels rounded up to whole vectors."""
    return -(-channels // LANES) * LANES


def apart(x: torch.Tensor) -> int | None:
    """How many numbers the voxels of ``x`` (B, D, H, W, C) lie apart; None if they do not do so evenly.

    Where that is more than C, there is room for whole vectors after the channels of each, also of the last one.

    >>> apart(torch.empty(1, 2, 3, 4, 8)), apart(torch.empty(1, 2, 3, 4, 8)[..., :5])
    (8, 8)
    >>> apart(torch.empty(1, 5, 2, 3, 4).movedim(1, -1)) is None, apart(torch.empty(1, 2, 3, 4, 8)[..., 3:]) is None
    (True, True)
    """
    if not _side_by_side(x):
        return None
    step = expected = x.stride(3)
    for axis in (3, 2, 1, 0):
        if x.shape[axis] > 1 and x.stride(axis) != expected:
            return None
        expected *= x.shape[axis]
    return step


def _side_by_side(x: torch.Tensor) -> bool:
    """Whether the channels of every voxel of ``x`` (B, D, H, W, C) are, with nothing of another voxel in their room."""
    step, channels = x.stride(3), x.shape[4]
    if (channels > 1 and x.stride(4) != 1) or step < channels:
        return False
    return step == channels or x.storage_offset() % step + in_eights(channels) <= step


def part(x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """``x`` (B, C, D, H, W), also a box out of a volume, as (B, D, H, W, C); copied only if need be.

    Returns:
        It, and how many numbers one voxel, line, plane and sample lie after another.

    >>> part(torch.zeros(1, 5, 6, 7, 8)[..., 1:3].contiguous(memory_format=torch.channels_last_3d)[..., 1:])[1]
    (5, 10, 70, 420)
    """
    last = x.detach().movedim(1, -1)
    # Across its voxels, not along them, a box could end within the room of the volume's last voxel.
    along = all(last.shape[axis] == 1 or last.stride(axis) % last.stride(3) == 0 for axis in range(3))
    last = last if along and _side_by_side(last) else last.contiguous()
    return last, tuple(last.stride(axis) for axis in (3, 2, 1, 0))


def voxels(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """``x`` (B, C, D, H, W) as (B, D, H, W, C) and how far `apart` the voxels lie; copied only if need be."""
    last = x.detach().movedim(1, -1)
    step = apart(last)
    return (last.contiguous(), x.shape[1]) if step is None else (last, step)


def numbers(shape: tuple[int, ...]) -> int:
    """How many numbers `channels_last` of a ``shape`` (B, C, D, H, W) lies in."""
    return math.prod((shape[0], _step(shape[1]), *shape[2:]))


def _step(channels: int) -> int:
    """How far apart voxels of so many channels are put: whole lines of the cache, for few channels whole vectors."""
    return in_eights(channels) if channels <= LANES else -(-channels // LINE) * LINE


def channels_last(shape: tuple[int, ...], memory: torch.Tensor) -> torch.Tensor:
    """A tensor (B, C, D, H, W) in the first numbers of ``memory``, channels last, with room for whole vectors of them.

    Those are read and written at once; above eight channels every voxel has lines of the cache of its own.

    >>> channels_last((1, 5, 2, 3, 4), torch.empty(200)).stride()
    (192, 1, 96, 32, 8)
    """
    whole = memory[: numbers(shape)].view(shape[0], *shape[2:], _step(shape[1]))
    return whole[..., : shape[1]].movedim(-1, 1)


def lanes(parameters: torch.Tensor) -> torch.Tensor:
    """(n, C) as (eights, n, 8), zeros after the last channel."""
    padded = F.pad(parameters.detach().float(), (0, -parameters.shape[1] % LANES))
    return padded.unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()
