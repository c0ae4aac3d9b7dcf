"""The residual blocks of HighResNet.

Shapes, here and in `rarevox.networks.highresnet`: B samples; B' rows of the batch axis, which are the samples or their
sub-lattices (`rarevox.networks.lattices`); C channels; *spatial two or three axes.
"""

from __future__ import annotations

import torch
from torch import nn

from rarevox.compiled import is_exported
from rarevox.networks.blocks import CONVOLUTION
from rarevox.networks.cpu import ops
from rarevox.networks.lattices.padding import WHOLE, Layout
from rarevox.networks.norms import NormActivation


class ResidualBlock(nn.Module):
    """conv2(act(norm2(conv1(act(norm1(x)))))) + x: two pre-activated 3³ convolutions and the identity.

    Where the channels grow, the identity is zero-padded half before and half after.

    Args:
        channels_in: channels of the input.
        channels: channels of the output, at least ``channels_in``.
        spatial_dims: 2 or 3.
        dilation: of both convolutions.
        norm: "batch" or "instance".
        activation: "relu" or "prelu".

    >>> ResidualBlock(4, 8, 2, dilation=2, norm="batch", activation="relu")(torch.zeros(1, 4, 9, 7)).shape
    torch.Size([1, 8, 9, 7])
    """

    def __init__(
        self, channels_in: int, channels: int, spatial_dims: int, dilation: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.norm1 = NormActivation(channels_in, spatial_dims, norm, activation)
        self.conv1 = same_convolution(spatial_dims, channels_in, channels, 3, dilation)
        self.norm2 = NormActivation(channels, spatial_dims, norm, activation)
        self.conv2 = same_convolution(spatial_dims, channels, channels, 3, dilation)

    def forward(
        self, x: torch.Tensor, layout: Layout = WHOLE, spare: ops.Spare | None = None, name: str = "block"
    ) -> torch.Tensor:
        """(B', channels_in, *spatial) to (B', channels, *spatial); with ``spare`` memory ``x`` may be overwritten."""
        if self.training or (torch.is_grad_enabled() and not is_exported(x)):
            y = ops.norm_act_conv(x, self.norm1, self.conv1, layout)
            return ops.norm_act_conv(y, self.norm2, self.conv2, layout, add=x)
        return ops.residual_block(x, (self.norm1, self.conv1, self.norm2, self.conv2), layout, spare, name)


class ConvNormActivation(nn.Module):
    """A convolution that keeps the size, without bias, then norm and activation."""

    def __init__(
        self, channels_in: int, channels: int, size: int, spatial_dims: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.conv = same_convolution(spatial_dims, channels_in, channels, size)
        self.norm = NormActivation(channels, spatial_dims, norm, activation)

    def forward(self, x: torch.Tensor, layout: Layout = WHOLE) -> torch.Tensor:
        """(B', channels_in, *spatial) to (B', channels, *spatial)."""
        return ops.conv_norm_act(x, self.conv, self.norm, layout)


def same_convolution(spatial_dims: int, channels_in: int, channels: int, size: int, dilation: int = 1) -> nn.Module:
    """A convolution that keeps the size (``size`` odd), without bias."""
    padding = dilation * (size // 2)
    return CONVOLUTION[spatial_dims](channels_in, channels, size, padding=padding, dilation=dilation, bias=False)
