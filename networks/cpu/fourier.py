"""Convolutions with wide kernels and few features as products of spectra, on the CPU.

A valid convolution is a product of Fourier transforms, ŷ(f) = Σ_c x̂_c(f) · conj(ŵ_c(f)), whose work does not grow with
the kernel: for C features on S voxels, C · S log S and C · C' · S in place of C · C' · K · S'. It is exact up to
rounding: a circular convolution of the input's own length is right wherever the kernel does not reach round the end,
and these are the voxels of a valid one; so no padding is needed but to a length that has a fast transform. The
backward passes are such products too, by automatic differentiation.

What is gained is chiefly the backward pass: for two output features oneDNN computes the gradients of a 21² kernel at a
hundredth of what the core can do (in channels last a thousandth; ``benchmarks/convolution.py``).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import nn

from rarevox.compiled import is_eager
from rarevox.networks.cpu.convolution import Conv3d

_FEWEST_WEIGHTS = 144
_MOST_FEATURES = 8


def pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `convolve` is the faster way: where gradients are wanted of a wide kernel with few output features.

    oneDNN computes sixteen output features at once, however few there are, and its work grows with the kernel; that of
    the spectra grows with the output features. They meet at about 12² weights and eight features. The pass forward
    alone is as fast without them, and takes less memory.

    Args:
        x: (B, C, *spatial), not empty, at least of the kernel's size.
        weight: (C', C, *kernel), of the same type, except within autocast.
    """
    return bool(
        is_eager(x, weight)
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and x.device.type == "cpu"
        and x.is_floating_point()
        and x.ndim == weight.ndim
        and x.shape[1] == weight.shape[1]
        and x.numel() > 0
        and all(n >= k for n, k in zip(x.shape[2:], weight.shape[2:], strict=True))
        and (x.dtype == weight.dtype or (torch.is_autocast_enabled("cpu") and x.dtype != torch.float64))
        and weight.shape[0] <= _MOST_FEATURES
        and weight[0, 0].numel() >= _FEWEST_WEIGHTS
    )


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A valid convolution (a correlation, as PyTorch's) of stride 1, in float32 at least.

    Args:
        x: (B, C, *spatial).
        weight: (C', C, *kernel).
        bias: (C',).

    Returns:
        (B, C', *(spatial − kernel + 1)), of the type that PyTorch's convolution would give. The error is of the size of
        the rounding of the largest values, not of each voxel's own: at most about eps · log₂ S · ‖x‖₂ · ‖w‖₂ (Higham,
        Accuracy and Stability of Numerical Algorithms, 2002, theorem 24.2).

    >>> x, weight = torch.randn(2, 3, 20, 15), torch.randn(2, 3, 12, 13)
    >>> torch.allclose(convolve(x, weight), nn.functional.conv2d(x, weight), atol=1e-3)
    True
    """
    number = torch.float64 if x.dtype == torch.float64 else torch.float32
    given = x.dtype
    if torch.is_autocast_enabled("cpu") and given != torch.float64:
        given = torch.get_autocast_dtype("cpu")
    size = [_fast_length(length) for length in x.shape[2:]]
    with torch.autocast("cpu", enabled=False):
        # Frequencies in front: each is a product of two small matrices.
        spectrum = _spectrum(weight.to(number), size).conj().permute(2, 1, 0)
        kept = [n - k + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
        y = _product(x.to(number), spectrum, size, kept)
        if bias is not None:
            y = y + bias.to(number).view(-1, *[1] * len(size))
    return y.to(given)


@lru_cache(maxsize=256)
def _fast_length(length: int) -> int:
    """The next length that has a fast transform."""
    from scipy.fft import next_fast_len  # a fifth of a second, for the networks that need it

    return int(next_fast_len(length, real=True))


def _product(x: torch.Tensor, spectrum: torch.Tensor, size: list[int], kept: list[int]) -> torch.Tensor:
    """The convolution of ``x`` with the weights of a spectrum (frequencies, C, C'), its valid part."""
    y = torch.bmm(_spectrum(x, size).permute(2, 0, 1), spectrum).permute(1, 2, 0)
    y = y.unflatten(2, [*size[:-1], size[-1] // 2 + 1])
    # The sizes are those of a transform of real numbers, whose last axis alone is halved.
    y = torch.fft.irfftn(y, s=size, dim=tuple(range(2, 2 + len(size))))
    for axis, length in enumerate(kept, start=2):
        y = y.narrow(axis, 0, length)
    return y


def _spectrum(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    """The transform of real (A, C, *spatial), filled up to ``size``: (A, C, frequencies).

    Axis by axis, the last one first, so that the zeros to which a kernel is filled up are transformed once and not for
    every axis.
    """
    x = torch.fft.rfft(x, n=size[-1], dim=-1)
    for axis in range(len(size) - 2, -1, -1):
        x = torch.fft.fft(x, n=size[axis], dim=2 + axis)
    return x.flatten(2)


def _is_plain(layer: nn.modules.conv._ConvNd) -> bool:
    """Whether a layer is a valid convolution of stride 1."""
    ones = (1,) * len(layer.kernel_size)
    return (
        layer.stride == ones
        and layer.dilation == ones
        and layer.groups == 1
        and not isinstance(layer.padding, str)
        and not any(layer.padding)
    )


class WideConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that goes through `convolve` where that pays."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if _is_plain(self) and pays(input, weight):
            return convolve(input, weight, bias)
        if torch.is_grad_enabled() and input.device.type == "cpu" and math.prod(self.kernel_size) >= _FEWEST_WEIGHTS:
            # oneDNN's gradients of a wide kernel take up to twenty times as long in channels last (one patch of 85²,
            # 16 classes: 14 s in place of 0.6), and at best two thirds.
            input = input.contiguous()
        return super()._conv_forward(input, weight, bias)


class WideConv3d(Conv3d):
    """`rarevox.networks.cpu.convolution.Conv3d` that goes through `convolve` where that pays."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if _is_plain(self) and pays(input, weight):
            return convolve(input, weight, bias)
        return super()._conv_forward(input, weight, bias)
