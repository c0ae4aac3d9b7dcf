"""The dilated residual blocks of HighResNet: the same on the volume as on its sub-lattices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.blocks import CONVOLUTION, make_activation
from rarevox.networks.cpu.convolution import conv3d
from rarevox.networks.cpu.norm.convolution import normed_convolution
from rarevox.networks.cpu.ops import Spare, norm_of, residual_block
from rarevox.networks.lattices.deal import Padding, zero_outside_
from rarevox.networks.norms import SampleNorm, make_norm, masked_batch_norm, zero_outside


@dataclass(frozen=True)
class Layout:
    """How the voxels lie in the tensor at hand.

    Args:
        batch: the samples in it.
        on_lattices: whether they are dealt out to sub-lattices, so that no convolution is dilated any more.
        padding: what lies outside the volumes; None without padding.
    """

    batch: int
    on_lattices: bool = False
    padding: Padding | None = None

    def dealt(self, factor: int) -> Layout:
        """The layout after `to_lattices` with ``factor``."""
        return replace(self, on_lattices=True, padding=self.padding and self.padding.dealt(factor))

    def rows(self, start: int, stop: int) -> Layout:
        """The layout of some sub-lattices alone, each taken for a sample (for evaluation with batch norm)."""
        return replace(self, batch=stop - start, padding=self.padding and self.padding.rows(start, stop))


class NormActivation(nn.Module):
    """Normalisation and activation whose statistics are those of the volumes, however their voxels are laid out.

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

    def forward(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """(B', C, *spatial) to the same, zero in the padding; ``x`` itself is left as it is.

        In training what lies in the padding of ``x`` must be zero.
        """
        norm: nn.Module = self.norm
        if isinstance(norm, SampleNorm):
            return self.activation(norm(x, layout.batch))
        if layout.padding is None:
            return self.activation(norm(x))
        if norm.training and isinstance(norm, _BatchNorm):
            return self.activation(masked_batch_norm(x, norm, layout.padding))
        y = self.activation(norm(x))
        return y * layout.padding.mask if torch.is_grad_enabled() else zero_outside_(y, layout.padding)

    def before(
        self, conv: nn.Module, x: torch.Tensor, layout: Layout, identity: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """``conv`` of norm and activation of ``x``, plus the identity, in one step of training; None if not for it.

        What lies in the padding of ``x`` must be zero, and is so in the result.
        """
        weight = conv.get_parameter("weight")
        return normed_convolution(x, self.norm, self.activation, weight, identity, layout.padding)

    def after(self, conv: nn.Module, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Norm and activation of ``conv(x)``; in evaluation batch norm is folded into the convolution's weights."""
        norm: nn.Module = self.norm
        if norm.training or torch.is_grad_enabled() or not isinstance(norm, _BatchNorm):
            return self(clear(convolve(conv, x, layout), layout), layout)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = conv.get_parameter("weight") * scale.view(-1, *(1,) * (x.ndim - 1))
        y = self.activation(convolve(conv, x, layout, weight, norm.bias - norm.running_mean * scale))
        return y if layout.padding is None else zero_outside_(y, layout.padding)


class ConvNorm(nn.Module):
    """A convolution without bias, then norm and activation."""

    def __init__(
        self, channels_in: int, channels: int, size: int, spatial_dims: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.conv = same_convolution(spatial_dims, channels_in, channels, size)
        self.norm = NormActivation(channels, spatial_dims, norm, activation)

    def forward(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """(B', channels_in, *spatial) to (B', channels, *spatial)."""
        return self.norm.after(self.conv, x, layout)


class DilatedBlock(nn.Module):
    """Two pre-activated 3³ convolutions and the identity, zero-padded half before and half after if channels grow.

    Args:
        channels_in: channels of the input.
        channels: channels of the output, at least ``channels_in``.
        spatial_dims: 2 or 3.
        dilation: of both convolutions.
        norm: "batch" or "instance".
        activation: "relu" or "prelu".
    """

    def __init__(
        self, channels_in: int, channels: int, spatial_dims: int, dilation: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.norm1 = NormActivation(channels_in, spatial_dims, norm, activation)
        self.conv1 = same_convolution(spatial_dims, channels_in, channels, 3, dilation)
        self.norm2 = NormActivation(channels, spatial_dims, norm, activation)
        self.conv2 = same_convolution(spatial_dims, channels, channels, 3, dilation)
        self.before = (channels - channels_in) // 2
        self.after = channels - channels_in - self.before

    def forward(self, x: torch.Tensor, layout: Layout, spare: Spare | None = None, name: str = "block") -> torch.Tensor:
        """(B', channels_in, *spatial) to (B', channels, *spatial).

        In evaluation, with ``spare``, ``x`` may be overwritten and the result may lie in the spare memory of ``name``.
        """
        if spare is not None:
            y = self._fused(x, layout, spare, name)
            if y is not None:
                return y
        between = self.norm1.before(self.conv1, x, layout) if self._undilated(layout) else None
        if between is not None:
            y = self.norm2.before(self.conv2, between, layout, x)
            if y is not None:
                return y
            between = self.norm2(between, layout)
        else:
            between = self.norm2.after(self.conv1, self.norm1(x, layout), layout)
        y = clear(convolve(self.conv2, between, layout), layout)
        if self.before + self.after == 0:
            y += x
        elif torch.is_grad_enabled():
            y += F.pad(x, [0, 0] * (x.ndim - 2) + [self.before, self.after])
        else:
            y.narrow(1, self.before, x.shape[1]).add_(x)
        return y

    def _undilated(self, layout: Layout) -> bool:
        """Whether these are plain convolutions of volumes, for their dilation or on sub-lattices."""
        conv = self.conv1
        return isinstance(conv, nn.Conv3d) and (layout.on_lattices or conv.dilation == (1, 1, 1))

    def _fused(self, x: torch.Tensor, layout: Layout, spare: Spare, name: str) -> torch.Tensor | None:
        """The block with norms and activations done on the way into the convolutions, where that pays."""
        if self.training or torch.is_grad_enabled() or not self._undilated(layout):
            return None
        norms = norm_of(self.norm1.norm, self.norm1.activation), norm_of(self.norm2.norm, self.norm2.activation)
        weights = self.conv1.get_parameter("weight"), self.conv2.get_parameter("weight")
        extents = None if layout.padding is None else layout.padding.extents
        return residual_block(x, norms, weights, extents, spare, name)


def same_convolution(spatial_dims: int, channels_in: int, channels: int, size: int, dilation: int = 1) -> nn.Module:
    """A convolution that keeps the size (``size`` odd), without bias."""
    padding = dilation * (size // 2)
    return CONVOLUTION[spatial_dims](channels_in, channels, size, padding=padding, dilation=dilation, bias=False)


def convolve(
    conv: nn.Module,
    x: torch.Tensor,
    layout: Layout,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``conv`` on ``x``, without its dilation on sub-lattices, with other weights if given."""
    own = conv.get_parameter("weight")
    half = own.shape[-1] // 2
    dilation = conv.dilation[0] if isinstance(conv, (nn.Conv2d, nn.Conv3d)) and not layout.on_lattices else 1
    weight = own if weight is None else weight
    if x.ndim == 4:
        return F.conv2d(x, weight, bias, padding=half * dilation, dilation=dilation)
    return conv3d(x, weight, bias, (half * dilation,) * 3, (dilation,) * 3)


def clear(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """``x``, a tensor that nothing else has kept, with zeros in the padding, in place."""
    if layout.padding is None:
        return x
    return zero_outside(x, layout.padding) if torch.is_grad_enabled() else zero_outside_(x, layout.padding)
