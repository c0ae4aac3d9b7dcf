"""The passes of batch norm with its activation in training: two kernels forward, two back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from rarevox.networks.cuda import norm_gradient_kernels as gradients
from rarevox.networks.cuda import norm_kernels as kernels
from rarevox.networks.cuda.launch import channels_last, on, processors

# Elements of a tile, channels padded to a power of two: 16 a thread of so many warps, which takes 60 to 110 registers
# a thread (compute capability 9.0): two programs a processor run at once.
ELEMENTS, WARPS, PROGRAMS = 4096, 8, 2
# Elements of what programs found that the next kernel reads at once.
FOUND = 4096


class About(NamedTuple):
    """What is no operand of the gradient."""

    mask: torch.Tensor | None
    inside: int
    running: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    momentum: float
    epsilon: float


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: torch.Tensor | None,
    add: torch.Tensor | None,
    about: About,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and mean and 1 / √(var + ε) of each channel, (2, C)."""
    channels, padded = x.shape[1], _padded(x)
    rows, tile = x.numel() // channels, ELEMENTS // padded
    programs = _programs(x, tile)
    partial = torch.empty(programs, 2, padded, dtype=torch.float32, device=x.device)
    counts = torch.empty(programs, dtype=torch.int32, device=x.device)
    statistics = torch.empty(2, weight.numel(), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    mask = x if about.mask is None else about.mask
    running = about.running or (statistics, statistics, counts)
    places = _places(x if add is None else add, x.shape[2:])
    sizes: dict[str, Any] = {"CHANNELS": channels, "PADDED": padded, "ROWS": tile, "MASKED": about.mask is not None}
    with on(x):
        kernels.moments_kernel[(programs,)](x, mask, partial, counts, rows, **sizes, num_warps=WARPS)
        kernels.norm_act_kernel[(programs,)](
            x,
            mask,
            x if add is None else add,
            weight,
            bias,
            weight if slope is None else slope.contiguous(),
            partial,
            counts,
            *running,
            statistics,
            out,
            rows,
            programs,
            about.momentum,
            about.epsilon,
            *places,
            **sizes,
            REAL=weight.numel(),
            CHUNK=_chunk(padded),
            ADDED=0 if add is None else add.shape[1],
            SLOPED=slope is not None,
            RUNNING=about.running is not None,
            num_warps=WARPS,
        )
    if about.running is not None:
        for one in about.running:  # written behind PyTorch's back
            if not one.is_inference():
                torch.autograd.graph.increment_version(one)
    return out, statistics


def backward(
    x: torch.Tensor,
    g: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: torch.Tensor | None,
    statistics: torch.Tensor,
    about: About,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of ``x``, and those of weight, bias and slope, (3, C)."""
    g = g.contiguous(memory_format=channels_last(x))
    channels, padded = x.shape[1], _padded(x)
    rows, tile = x.numel() // channels, ELEMENTS // padded
    programs = _programs(x, tile)
    partial = torch.empty(programs, 3, padded, dtype=torch.float32, device=x.device)
    of_parameters = torch.empty(3, weight.numel(), dtype=torch.float32, device=x.device)
    dx = torch.empty_like(x)
    mask, slopes = x if about.mask is None else about.mask, weight if slope is None else slope.contiguous()
    inputs = (x, g, mask, weight, bias, slopes, statistics)
    options: dict[str, Any] = {
        "CHANNELS": channels,
        "REAL": weight.numel(),
        "PADDED": padded,
        "ROWS": tile,
        "MASKED": about.mask is not None,
        "SLOPED": slope is not None,
        "num_warps": WARPS,
    }
    with on(x):
        gradients.gradient_sums_kernel[(programs,)](*inputs, partial, rows, **options)
        gradients.gradient_kernel[(programs,)](
            *inputs,
            partial,
            of_parameters,
            dx,
            rows,
            about.inside,
            programs,
            CHUNK=_chunk(padded),
            **options,
        )
    return dx, of_parameters


def _padded(x: torch.Tensor) -> int:
    """Channels of a tile."""
    return max(2, 1 << (x.shape[1] - 1).bit_length())


def _chunk(padded: int) -> int:
    """Programs whose findings are read at once."""
    return max(2, FOUND // padded)


def _programs(x: torch.Tensor, tile: int) -> int:
    """So many as fill the device, each with a tile at least."""
    rows = x.numel() // x.shape[1]
    return max(1, min(-(-rows // tile), PROGRAMS * processors(x)))


def _places(x: torch.Tensor, size: Sequence[int]) -> tuple[int, ...]:
    """Strides of sample and three axes of volumes with the channels innermost, and their sizes; one plane in 2D."""
    missing = 3 - len(size)
    return (x.stride(0), *(0,) * missing, *x.stride()[2:], *(1,) * missing, *size)
