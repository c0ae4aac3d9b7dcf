"""Batch norm, activation and a 3³ convolution as one step of training, in float32 on the CPU.

Norm and activation happen on the convolution's way into its domain (`rarevox.networks.cpu.winograd.convolution`), so
that their result is neither written nor kept for the backward pass: a layer keeps its input alone, and half of a
training step's memory and passes over it are saved. Statistics, gradients and running statistics are those of the
separate layers, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from rarevox.compiled import compiled_module, share_out
from rarevox.networks.cpu.instructions.sizes import LANES
from rarevox.networks.cpu.norm.job import ROWS, Pass
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.cpu.winograd.convolution import Around
from rarevox.networks.protocols import NormAct


def _kernels() -> ModuleType | None:
    """The compiled part; None without Numba, or where it can keep no compiled code."""
    return compiled_module("rarevox.networks.cpu.norm.kernels")


class Outside(NamedTuple):
    """What of volumes with padding lies outside them; it is zero, and stays out of the statistics.

    Args:
        extents: (B, 3), how many of the first places of each axis lie inside.
        inside: the number of voxels inside, all samples together.
        clear: sets what lies outside to zero, in place.
    """

    extents: torch.Tensor
    inside: int
    clear: Callable[[torch.Tensor], torch.Tensor]


def fits(x: torch.Tensor, layer: NormAct, weight: torch.Tensor, add: torch.Tensor | None, first: int) -> bool:
    """Whether `norm_act_conv` takes these: batch norm in training and ReLU or PReLU, float32 on the CPU, where it pays.

    The kernels take whole vectors of channels: of ``x``, and of ``add`` where that has fewer than come out.
    """
    norm = layer.norm
    return (
        type(norm) is nn.BatchNorm3d
        and norm.training
        and norm.affine
        and isinstance(layer.activation, (nn.ReLU, nn.PReLU))
        and torch.is_grad_enabled()
        and winograd.pays(x, weight, (1, 1, 1))
        and x.shape[1] % LANES == 0
        and (add is None or add.shape[1] == weight.shape[0] or (first % LANES == 0 and add.shape[1] % LANES == 0))
        and _kernels() is not None
    )


def norm_act_conv(
    x: torch.Tensor,
    layer: NormAct,
    weight: torch.Tensor,
    add: torch.Tensor | None = None,
    first: int = 0,
    outside: Outside | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``conv3d(activation(norm(x)), weight, padding=1) + add`` in training, for what `fits`.

    Args:
        x: (B, C, D, H, W).
        layer: a BatchNorm3d in training, whose running statistics are left to the caller, and ReLU, or PReLU with a
            slope for all channels or for each.
        weight: (C', C, 3, 3, 3).
        add: (B, C", D, H, W), added to the channels from ``first`` on.
        first: a multiple of eight where C" is less than C'.
        outside: what of ``x`` lies outside the volumes; the result and all gradients are zero there.

    Returns:
        (B, C', D, H, W), and mean and biased variance of each channel over what lies inside, (C,) in float64.
    """
    norm, activation = layer.norm, layer.activation
    # One input channel has no order of the axes: PyTorch's convolution of it may put the channels first.
    x = x.contiguous(memory_format=torch.channels_last_3d)
    slope = activation.weight if isinstance(activation, nn.PReLU) else None
    return _NormedConvolution.apply(x, norm.weight, norm.bias, slope, weight, add, first, outside, norm.eps)


class _NormedConvolution(torch.autograd.Function):
    """With x̂ = (x − mean) / √(var + ε), a = γ·x̂ + β, s = a where a > 0 and slope · a elsewhere: y = conv(s) +
    identity.

    Backward, g being what reaches s and g' = g where a > 0, slope · g elsewhere: dβ = Σg', dγ = Σg'·x̂,
    dx = γ/√(var + ε) · (g' − (dβ + x̂·dγ) / V) over V voxels; the slope gets Σ g·a over a ≤ 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        slope: torch.Tensor | None,
        weight: torch.Tensor,
        identity: torch.Tensor | None,
        first: int,
        outside: Outside | None,
        epsilon: float,
    ) -> Any:
        mean, variance = _statistics(x, outside)
        inverse = (variance + epsilon).rsqrt()
        scale = gamma.double() * inverse
        slopes = torch.zeros_like(scale) if slope is None else slope.double().expand_as(scale)
        norm = torch.stack([scale, beta.double() - mean * scale, slopes]).float()
        extents = None if outside is None else outside.extents
        y = winograd.convolve(x, weight, 1, Around(norm=norm, add=identity, first=first, extents=extents))
        ctx.save_for_backward(x, gamma, weight, norm, mean, inverse)
        ctx.slopes = None if slope is None else slope.numel()
        ctx.middle = None if identity is None else (first, identity.shape[1])
        ctx.outside, ctx.extents = outside, extents
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, gamma, weight, norm, mean, inverse = ctx.saved_tensors
        incoming = gradients[0].contiguous(memory_format=torch.channels_last_3d)
        needs = ctx.needs_input_grad
        if ctx.outside is not None:
            incoming = ctx.outside.clear(incoming.clone(memory_format=torch.preserve_format))
        d_weight = winograd.weight_gradient(x, incoming, 1, norm, ctx.extents) if needs[4] else None
        d_identity = incoming.narrow(1, *ctx.middle) if needs[5] else None
        dx = d_gamma = d_beta = d_slope = None
        if any(needs[:4]):
            dx = winograd.convolve(incoming, weight, 1, Around(extents=ctx.extents), transposed=True)
            voxels = _inside(x, ctx.outside)
            total = _run("gradient_sums", x, dx, torch.cat([norm.double(), mean[None]]), 3)
            d_beta, d_gamma = total[0], total[1] * inverse
            if ctx.slopes is not None:
                d_slope = (total[2] if ctx.slopes > 1 else total[2].sum()[None]).float()
            scale = gamma.double() * inverse
            a = -scale * inverse * d_gamma / voxels
            b = -scale * d_beta / voxels - a * mean
            _run("gradient_values", x, dx, torch.cat([norm.double(), a[None], b[None]]), 0)
            if ctx.outside is not None:
                ctx.outside.clear(dx)
            d_beta, d_gamma = d_beta.float(), d_gamma.float()
        return dx, d_gamma, d_beta, d_slope, d_weight, d_identity, None, None, None


def _inside(x: torch.Tensor, outside: Outside | None) -> int:
    """The number of voxels inside the volumes."""
    return x.numel() // x.shape[1] if outside is None else outside.inside


def _statistics(x: torch.Tensor, outside: Outside | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of each channel inside the volumes, in float64; ``x`` is zero outside.

    Sums of the distance to a voxel's own values, for the square of a mean far from zero would swallow the variance.
    """
    pivot = x.detach()[0, :, 0, 0, 0].double()
    first, second = _run("moments", x, x, pivot[None], 2)
    inside = _inside(x, outside)
    padded = x.numel() // x.shape[1] - inside
    distance = (first + padded * pivot) / inside
    square = (second - padded * pivot.square()) / inside
    return pivot + distance, (square - distance.square()).clamp_min(0)


def _run(task: str, x: torch.Tensor, g: torch.Tensor, parameters: torch.Tensor, sums: int) -> torch.Tensor:
    """A task of `rarevox.networks.cpu.norm.kernels` with parameters (n, C) on volumes (B, C, D, H, W); sums (``sums``,
    C)."""
    kernels = _kernels()
    assert kernels is not None
    channels = x.shape[1]
    voxels, eights = x.numel() // channels, channels // LANES
    table = parameters.float().unflatten(1, (eights, LANES)).transpose(0, 1).contiguous()
    out = torch.zeros((-(-voxels // ROWS), eights, sums, LANES))
    job = Pass(
        x=x.data_ptr(),
        gradient=g.data_ptr(),
        parameters=table.data_ptr(),
        sums=out.data_ptr(),
        voxels=voxels,
        channels=channels,
    )
    share_out(getattr(kernels, task).address, job)
    return out.sum(0, dtype=torch.float64).transpose(0, 1).flatten(1)
