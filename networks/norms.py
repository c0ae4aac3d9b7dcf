"""Norms and activations whose statistics are those of the volumes, however their voxels are laid out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.lattices.padding import WHOLE, Layout, masked_batch_norm, zero_outside_
from rarevox.networks.protocols import NormAct

MOMENTUM, EPSILON = 0.1, 1e-5
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class SampleNorm(nn.Module):
    """Instance norm with weight and bias whose statistics span all sub-lattices of a sample.

    y = (x − mean) / √(var + 1e-5) · weight + bias, mean and (biased) variance over the voxels of one sample and
    channel. There are no running statistics: training and evaluation are the same.

    Args:
        channels: the number of channels.

    Shapes: (B · L, C, *spatial) to the same, the L sub-lattices of a sample next to each other.

    >>> y = SampleNorm(2)(torch.randn(3, 2, 4, 4), batch=3)
    >>> bool(y.mean((2, 3)).abs().max() < 1e-5)
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, batch: int | None = None) -> torch.Tensor:
        """Normalise ``x``; ``batch`` is the number of samples that its first axis holds (None: each row is one)."""
        count, channels, *size = x.shape
        batch = count if batch is None else batch
        lattices = count // batch
        # A group norm with a group for each channel is an instance norm, and it has a channels-last kernel. The
        # lattices are appended to the first spatial axis: a view when the channels are last in memory.
        joined = x.unflatten(0, (batch, lattices)).movedim(1, 2).reshape(batch, channels, lattices * size[0], *size[1:])
        y = F.group_norm(joined, channels, self.weight, self.bias, EPSILON)
        return y.unflatten(2, (lattices, size[0])).movedim(2, 1).reshape(count, channels, *size)


def make_norm(kind: str, channels: int, spatial_dims: int) -> nn.Module:
    """Batch norm (momentum 0.1, ε 1e-5) or `SampleNorm`."""
    if kind == "instance":
        return SampleNorm(channels)
    return BATCH_NORM[spatial_dims](channels, eps=EPSILON, momentum=MOMENTUM)


def make_activation(name: str, channels: int) -> nn.Module:
    """ReLU that may write onto its input, or PReLU with a slope for each channel (0.25 at first)."""
    return nn.PReLU(channels) if name == "prelu" else nn.ReLU(inplace=True)


def norm_act(x: torch.Tensor, layer: NormAct, layout: Layout = WHOLE) -> torch.Tensor:
    """Norm, then activation, zero in the padding; ``x`` itself is left as it is.

    Args:
        x: (B', C, *spatial); in training what lies in the padding must be zero.
        layer: what is applied.
        layout: how the voxels of ``x`` lie.

    Returns:
        (B', C, *spatial).
    """
    norm, activation = layer.norm, layer.activation
    if isinstance(norm, SampleNorm):
        return activation(norm(x, layout.batch))
    if layout.padding is None:
        return layout.clear(activation(norm(x)))
    if norm.training and isinstance(norm, _BatchNorm):
        return activation(masked_batch_norm(x, norm, layout.padding))
    y = activation(norm(x))
    return y * layout.padding.mask if torch.is_grad_enabled() else zero_outside_(y, layout.padding)


class NormActivation(nn.Module):
    """`norm_act` as a module with a norm and an activation of its own.

    Args:
        channels: the number of channels.
        spatial_dims: 2 or 3.
        norm: "batch" or "instance".
        activation: "relu" or "prelu".
    """

    def __init__(self, channels: int, spatial_dims: int, norm: str, activation: str) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, spatial_dims)
        self.activation = make_activation(activation, channels)

    def forward(self, x: torch.Tensor, layout: Layout = WHOLE) -> torch.Tensor:
        """(B', C, *spatial) to the same; see `norm_act`."""
        return norm_act(x, self, layout)
