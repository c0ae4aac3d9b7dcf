"""Convolutions on the fastest kernels that there are for them on the CPU.

In float32, 3³ kernels with channels enough go through `rarevox.networks.cpu.winograd.convolution`, on an eighth of the
multiplications.

PyTorch hands a float32 convolution on the CPU to oneDNN only if the batch has two samples or more, or if batch ×
channels × the first two spatial sizes exceed 20480 (``ConvParams::use_mkldnn`` in ATen/native/Convolution.cpp); below,
a routine of its own takes two to twelve times as long, forward and backward (``benchmarks/convolution.py``); only
pointwise kernels are as fast there. One 32³ patch with 16 channels is below.
Such a patch is cut into two slabs along its first axis, each with the rows that the kernel reaches beyond the cut, and
convolved as a batch of two: the same numbers, for one copy of the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rarevox.compiled import compiled_module, is_eager, why_plain
from rarevox.networks.cpu import half_precision
from rarevox.networks.cpu.instructions.sizes import LANES
from rarevox.networks.cpu.winograd import convolution as winograd

_SMALL = 20480


def is_slow_alone(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether PyTorch would convolve ``x`` (B, C, *spatial) without oneDNN for its small size alone."""
    return bool(
        x.ndim == 5
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and is_eager(x, weight)
        and x.shape[0] == 1
        and not torch.is_autocast_enabled("cpu")
        and x.shape[1] * x.shape[2] * x.shape[3] <= _SMALL
        and 1 < weight.shape[-1] <= 3
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
    )


def conv3d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    padding: tuple[int, ...] = (0, 0, 0),
    dilation: tuple[int, ...] = (1, 1, 1),
) -> torch.Tensor:
    """`torch.nn.functional.conv3d` with stride 1, by Winograd's algorithm or in two slabs where that is faster.

    Args:
        x: (B, C, D, H, W).
        weight: (C', C, k, k, k).
        bias: (C',).
        padding: zeros at both faces, for each axis.
        dilation: for each axis.

    Returns:
        (B, C', D', H', W'), D' = D + 2·padding − (k − 1)·dilation.

    >>> x, weight = torch.randn(1, 2, 7, 5, 6), torch.randn(4, 2, 3, 3, 3)
    >>> torch.allclose(conv3d(x, weight), F.conv3d(x, weight), atol=1e-5)
    True
    """
    if dilation != (1, 1, 1) or not winograd.pays(x, weight, padding):
        return _plain(x, weight, bias, padding, dilation)
    if not torch.is_grad_enabled():
        return fused_conv3d(x, weight, padding[0], bias=bias)
    y = winograd.conv3d(x, weight, padding[0])
    return y if bias is None else y.add_(bias.view(-1, 1, 1, 1))


def fused_conv3d(
    x: torch.Tensor,
    weight: torch.Tensor,
    padding: int,
    *,
    bias: torch.Tensor | None = None,
    slope: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    add: torch.Tensor | None = None,
) -> torch.Tensor:
    """`conv3d` by Winograd's algorithm with all that follows in one pass, without gradients, where it `pays`.

    Args:
        x: (B, C, D, H, W).
        weight: (C', C, 3, 3, 3).
        padding: zeros at every face.
        bias: (C',).
        slope: (C',), of a ReLU (0) or PReLU that follows.
        out: what the result is written to: channels last, sharing no memory with ``x`` or ``add``.
        add: (B, at most C', D', H', W'), added to the first channels after all else; in the same pass where its
            channels are C' or a multiple of eight.
    """
    columns, after = weight.shape[0], None
    if bias is not None or slope is not None:
        zero, one = torch.zeros(columns), torch.ones(columns)
        after = torch.stack([zero if bias is None else bias, one if slope is None else slope])
    in_vectors = add is not None and (add.shape[1] == columns or add.shape[1] % LANES == 0)
    around = winograd.Around(bias=after, add=add if in_vectors else None)
    y = winograd.convolve(x, weight, padding, around, out=out)
    if add is not None and not in_vectors:
        y.narrow(1, 0, add.shape[1]).add_(add)
    return y


def _plain(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> torch.Tensor:
    """`conv3d` by PyTorch's convolution, in two slabs where that is faster."""
    reach = (weight.shape[2] - 1) * dilation[0]
    length = x.shape[2] + 2 * padding[0] - reach
    if not is_slow_alone(x, weight) or length < 2:
        return half_precision.conv3d(x, weight, bias, padding=padding, dilation=dilation)
    half = -(-length // 2)
    padded = F.pad(x, (0, 0, 0, 0, padding[0], padding[0] + 2 * half - length))
    slabs = torch.cat([padded.narrow(2, 0, half + reach), padded.narrow(2, half, half + reach)])
    y = F.conv3d(slabs, weight, bias, padding=(0, *padding[1:]), dilation=dilation)
    # Channels-last, the slabs follow one another in memory already and this is a view.
    whole = y.movedim(1, -1).reshape(1, 2 * half, *y.shape[3:], y.shape[1]).movedim(-1, 1)
    return whole if 2 * half == length else whole.narrow(2, 0, length)


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that goes through `conv3d` where stride, groups and padding are plain."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        plain = self.stride == (1, 1, 1) and self.groups == 1
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        if not plain:
            return half_precision.conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return conv3d(input, weight, bias, self.padding, self.dilation)  # type: ignore[arg-type]


def prefers_float32(network: nn.Module) -> bool:
    """Whether a network on a CPU without matrix units is faster in float32 than in bfloat16, if it has both.

    Networks whose convolutions go through `rarevox.networks.cpu.winograd.convolution` say so (``float32_kernels``), and
    the kernels must be there.
    """
    return bool(getattr(network, "float32_kernels", False)) and why_plain() is None


def load_kernels() -> None:
    """Import the compiled kernels of networks in evaluation now, while something else is waited for.

    That takes half a second to one, once in a process; it would be part of the first pass otherwise.
    """
    for name in ("rarevox.networks.cpu.winograd.kernels", "rarevox.networks.cpu.pointwise.kernels"):
        compiled_module(name)


def use_fast_convolutions(network: nn.Module) -> nn.Module:
    """Let every plain `torch.nn.Conv3d` of ``network`` go through `conv3d`; its parameters and names stay.

    For networks from elsewhere. Subclasses, which may compute something else, are left alone.

    >>> use_fast_convolutions(nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU()))[0].__class__.__module__
    'rarevox.networks.cpu.convolution'
    """
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = Conv3d
    return network
