"""Batch norm in evaluation, or a bias, with activation, sum and padding, in one pass over the memory of a GPU.

PyTorch takes a pass each: norm, activation, and a face at a time what lies outside the volume. A scan is bound by
memory (`docs/gpu.md`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rarevox.compiled import is_eager
from rarevox.compiled.gpu import why_none
from rarevox.networks.cuda import kernels
from rarevox.networks.cuda.kernels import triton
from rarevox.networks.cuda.launch import channels_last, on

# Elements of a tile, channels padded to a power of two: 16 a thread of four warps.
TILE_ELEMENTS = 2048
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def works(x: torch.Tensor) -> bool:
    """Whether the kernel can be used for volumes like ``x``: on a GPU, Triton, no gradients.

    >>> works(torch.zeros(1, 2, 4, 4, 4))  # not on a GPU
    False
    """
    return (
        x.is_cuda
        and x.ndim in (4, 5)
        and x.dtype in TYPES
        and not torch.is_grad_enabled()
        and why_none() is None
        and is_eager(x)
    )


def fits(x: torch.Tensor) -> bool:
    """Whether the kernel takes ``x``: where it `works`, with the channels innermost."""
    return works(x) and x.is_contiguous(memory_format=channels_last(x))


class Added(NamedTuple):
    """What is added in the same pass, to the first channels.

    Args:
        volume: (B', at most C, *spatial), or a coarser one; channels innermost, a crop of a larger volume.
        factor: voxels that one of ``volume`` stands for along each axis.
        first: the plane, along the first axis, of the volume at full resolution that the first one of ``x`` is.
        before: it is added before the activation, not after.
    """

    volume: torch.Tensor
    factor: int = 1
    first: int = 0
    before: bool = False


def affine_act(
    x: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor,
    slope: torch.Tensor,
    mask: torch.Tensor | None = None,
    add: Added | None = None,
    *,
    in_place: bool = False,
) -> torch.Tensor:
    """a = scale · x + shift, then a where a > 0 and slope · a elsewhere, and what is added; 0 where the mask is.

    Args:
        x: (B', C, *spatial) where :func:`fits`; float32, bfloat16 or float16.
        scale: (C,), or of the first channels, the others being zero and staying so; None is 1.
        shift, slope: as ``scale``.
        mask: (B', 1, *spatial), 1 inside the volumes and 0 outside; None where nothing lies outside.
        add: what is added.
        in_place: write onto ``x``.

    Returns:
        As ``x``, in its type; the arithmetic is float32.
    """
    out = x if in_place else torch.empty_like(x)
    channels = x.shape[1]
    padded = max(2, triton.next_power_of_2(channels))
    tile = max(1, TILE_ELEMENTS // padded)
    rows = x.numel() // channels
    shift, slope = shift.float().contiguous(), slope.float().contiguous()
    volume, places = x, (0,) * 8
    if add is not None:
        assert rows < 2**31, "places of what is added are 32-bit numbers"
        volume = add.volume if add.volume.stride(1) == 1 else add.volume.contiguous(memory_format=channels_last(x))
        one = (0,) * (5 - x.ndim)  # an axis of one voxel after those of a slice
        places = (volume.stride(0), *volume.stride()[2:], *one, *x.shape[2:], *(1 for _ in one), add.first)
    with on(x):
        kernels.affine_act_kernel[(triton.cdiv(rows, tile),)](
            x,
            shift if scale is None else scale.float().contiguous(),
            shift,
            slope,
            x if mask is None else mask.contiguous(),
            volume,
            out,
            rows,
            *places,
            CHANNELS=channels,
            REAL=shift.numel(),
            PADDED=padded,
            ROWS=tile,
            SCALED=scale is not None,
            MASKED=mask is not None,
            ADDED=0 if add is None else volume.shape[1],
            FACTOR=1 if add is None else add.factor,
            BEFORE=add is not None and add.before,
        )
    return out
