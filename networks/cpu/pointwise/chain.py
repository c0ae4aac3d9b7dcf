"""Chains of 1³ layers in evaluation on the CPU, in one pass over the memory.

The joint layers of DeepMedic and the last two of HighResNet are products of every voxel's features with small
matrices. One layer after another, their features, the widest of the network, go out to memory and come back. Here a
few voxels at a time go through all layers within the cache. What voxels of a coarser path add to the first layer is
computed at their own resolution, once for every factor³ voxels.

Needs Numba; where it does not apply, the layers run one by one in PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rarevox.compiled import compiled_module, is_eager, share_out
from rarevox.networks.cpu import volumes
from rarevox.networks.cpu.fold import fold
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, PANEL
from rarevox.networks.cpu.pointwise.job import ROWS, Chain, LayerWeights
from rarevox.networks.protocols import NormAct


class Layer(NamedTuple):
    """y = a where a > 0, slope · a elsewhere, a = weight · x + bias.

    Args:
        weight: (C', C).
        bias: (C',).
        slope: (C',); ones for a linear layer, zeros for ReLU.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    slope: torch.Tensor


def kernels() -> ModuleType | None:
    """The compiled part; None without Numba, or where it can keep no compiled code."""
    return compiled_module("rarevox.networks.cpu.pointwise.kernels")


def applies(x: torch.Tensor, *weights: torch.Tensor) -> bool:
    """Whether `chain` takes ``x``: (B, C, D, H, W) of float32 on the CPU, without gradients or autocast, all eager."""
    return (
        x.ndim == 5
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and is_eager(x, *weights)
        and kernels() is not None
    )


def layer_of(conv: nn.Module, layer: NormAct) -> Layer | None:
    """A 1³ convolution with the batch norm in evaluation and the ReLU or PReLU after it; None for others."""
    folded, weight = fold(layer), conv.get_parameter("weight")
    if folded is None or conv.bias is not None or weight[0, 0].numel() != 1 or not is_eager(weight, *folded):
        return None
    return Layer(weight.flatten(1) * folded.scale[:, None], folded.shift, folded.slope)


def plain(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """A linear layer of ``weight`` (C', C)."""
    ones = torch.ones(weight.shape[0])
    return Layer(weight, torch.zeros_like(ones) if bias is None else bias, ones)


def linear(conv: torch.nn.Module) -> Layer:
    """A 1³ convolution by itself, with its bias if it has one."""
    return plain(conv.get_parameter("weight").flatten(1), None if conv.bias is None else conv.get_parameter("bias"))


def chain(
    x: torch.Tensor,
    layers: Sequence[Layer],
    coarse: torch.Tensor | None = None,
    *,
    factor: int = 1,
    before: int = 0,
    in_eights: bool = False,
) -> torch.Tensor:
    """``layers`` one after another at every voxel.

    Args:
        x: (B, C, D, H, W), as `applies` asks.
        layers: the first of C input channels, each other of as many as the one before puts out.
        coarse: (B, C₁ or C₁ in eights, d, h, w), added to the sums of the first layer: voxel (z, y, x) meets
            ((z + before) // factor, y // factor, x // factor).
        factor: how many voxels a coarse one stands for along each axis.
        before: planes of the finer grid before the first of ``x``.
        in_eights: put out channels in whole eights, with numbers that mean nothing after the last; for ``coarse``.

    Returns:
        (B, channels of the last layer, D, H, W), channels last in memory.

    >>> x, weight = torch.randn(1, 3, 4, 5, 6), torch.randn(2, 3)
    >>> with torch.no_grad():
    ...     y = chain(x, [Layer(weight, torch.zeros(2), torch.ones(2))]) if applies(x) else None
    >>> y is None or torch.allclose(y, torch.einsum("oc,bczyx->bozyx", weight, x), atol=1e-5)
    True
    """
    source, stride = volumes.voxels(x)
    batch, depth, height, width, channels = source.shape
    columns = layers[-1].weight.shape[0]
    out_channels = volumes.in_eights(columns) if in_eights else columns
    target = torch.empty((batch, depth, height, width, out_channels))
    row_floats = max(volumes.in_eights(n) for n in (channels, *(layer.weight.shape[0] for layer in layers)))
    buffers = torch.zeros(2 * ROWS * row_floats * torch.get_num_threads())
    threads = torch.zeros(1, dtype=torch.int64)
    beside = None if coarse is None else _whole_eights(coarse)
    coarse_depth, coarse_height, coarse_width = (0, 0, 0) if beside is None else beside.shape[1:4]
    panels = [_panels(layer.weight) for layer in layers]
    biases = [volumes.lanes(torch.stack([layer.bias, layer.slope])) for layer in layers]
    table = [
        LayerWeights(
            panels=panel.data_ptr(),
            bias=bias.data_ptr(),
            in_channels=layer.weight.shape[1],
            out_channels=layer.weight.shape[0],
        )
        for layer, panel, bias in zip(layers, panels, biases, strict=True)
    ]
    weights = torch.tensor(table, dtype=torch.int64)
    job = Chain(
        source=source.data_ptr(),
        source_stride_bytes=FLOAT_BYTES * stride,
        in_channels=channels,
        target=target.data_ptr(),
        out_channels=out_channels,
        voxels=batch * depth * height * width,
        depth=depth,
        height=height,
        width=width,
        buffers=buffers.data_ptr(),
        row_bytes=FLOAT_BYTES * row_floats,
        threads=threads.data_ptr(),
        layers=weights.data_ptr(),
        layer_count=len(layers),
        coarse=0 if beside is None else beside.data_ptr(),
        coarse_depth=coarse_depth,
        coarse_height=coarse_height,
        coarse_width=coarse_width,
        factor=factor,
        planes_before=before,
    )
    compiled = kernels()
    assert compiled is not None
    share_out(compiled.chain.address, job)
    return target.movedim(-1, 1)


def _panels(weight: torch.Tensor) -> torch.Tensor:
    """(C', C) as (panels, C, 16), zeros after the last row."""
    padded = F.pad(weight.detach(), (0, 0, 0, -weight.shape[0] % PANEL))
    return padded.unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()


def _whole_eights(coarse: torch.Tensor) -> torch.Tensor:
    """(B, C, d, h, w) as (B, d, h, w, C in eights)."""
    last, more = coarse.movedim(1, -1), -coarse.shape[1] % LANES
    return (F.pad(last, (0, more)) if more else last).contiguous()
