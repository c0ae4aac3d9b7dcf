"""What DeepMedic's paths and joint layers are made of: valid convolutions with batch norm and PReLU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from networks.blocks import BATCH_NORM, CONVOLUTION, crop_faces
from networks.convolution import conv3d

RESIDUAL_LAYERS = (4, 6, 8)
"""The layers, counted from 1, to whose output the input of the one before is added."""


class ValidUnit(nn.Module):
    """A valid convolution with batch norm and PReLU: after it, or before it with ``preactivation``."""

    def __init__(self, channels_in: int, channels: int, size: int, dims: int, preactivation: bool, bare: bool) -> None:
        super().__init__()
        normed = channels_in if preactivation else channels
        self.preactivation = preactivation
        self.conv = CONVOLUTION[dims](channels_in, channels, size, bias=False)
        # The scan itself is not normed: a pre-activated path begins with its convolution.
        self.norm = nn.Identity() if bare else BATCH_NORM[dims](normed)
        self.activation = nn.Identity() if bare else nn.PReLU(normed)

    @property
    def out_channels(self) -> int:
        """C'."""
        return int(self.conv.out_channels)

    def forward(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, *spatial) to (B, C', *spatial − (size − 1)); in evaluation batch norm is folded into the weights.

        ``out``, in evaluation without gradients, is what the result is written to.
        """
        norm = self.norm
        if self.preactivation:
            y = self.conv(self.activation(norm(x)))
            return y if out is None else out.copy_(y)
        if norm.training or torch.is_grad_enabled() or not isinstance(norm, _BatchNorm) or norm.running_var is None:
            y = self.activation(norm(self.conv(x)))
            return y if out is None else out.copy_(y)
        assert norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = self.conv.weight * scale.view(-1, *(1,) * (x.ndim - 1))
        bias = norm.bias - norm.running_mean * scale
        if x.ndim == 4:
            return self.activation(F.conv2d(x, weight, bias))
        return conv3d(x, weight, bias, slope=self.activation.get_parameter("weight"), out=out)


class ValidPath(nn.Module):
    """Eight (or as many as there are channels) valid 3³ convolutions at one resolution."""

    def __init__(
        self, in_channels: int, channels: Sequence[int], dims: int, residual: bool, preactivation: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        sizes = (in_channels, *channels)
        self.layers = nn.ModuleList(
            ValidUnit(sizes[i], sizes[i + 1], 3, dims, preactivation, bare=preactivation and i == 0)
            for i in range(len(channels))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) to (B, channels[-1], *spatial − 2 · layers)."""
        entry = x
        for number, layer in enumerate(self.layers, start=1):
            if number % 2 == 1:
                entry = x
            x = layer(x)
            if self.residual and number in RESIDUAL_LAYERS:
                x = x + _match_channels(crop_faces(entry, 2), x.shape[1])
        return x


def _match_channels(x: torch.Tensor, channels: int) -> torch.Tensor:
    """``x`` with channels of zeros after its own."""
    more = channels - x.shape[1]
    return F.pad(x, [0, 0] * (x.ndim - 2) + [0, more]) if more else x
