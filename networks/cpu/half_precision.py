"""3D convolutions in half precision on the CPU, at sizes where oneDNN's gradients are right."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rarevox.compiled import is_exported

_Three = tuple[int, ...]


def conv3d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: _Three = (1, 1, 1),
    padding: _Three = (0, 0, 0),
    dilation: _Three = (1, 1, 1),
    groups: int = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv3d`, with gradients in half precision on the CPU at any size.

    oneDNN's gradient of the weights with AVX512-BF16 (torch 2.13) is wrong where an axis is shorter than 2·padding + 1,
    so that no output sees only voxels of the input: memory that nobody wrote is read, and with strides other memory
    is overwritten. Such axes are lengthened with zeros, which changes no number, and what these add is dropped.

    >>> x, weight = torch.ones(1, 1, 2, 3, 1), torch.ones(1, 1, 3, 3, 3)
    >>> conv3d(x, weight, None, padding=(1, 1, 1)).flatten().tolist()
    [4.0, 6.0, 4.0, 4.0, 6.0, 4.0]
    """
    # Asked first: a program that is recorded for other sizes must decide nothing by those at hand.
    if not (torch.is_grad_enabled() and is_half_on_cpu(x)) or is_exported(x):
        return F.conv3d(x, weight, bias, stride, padding, dilation, groups)
    missing = [max(0, 2 * p + 1 - length) for length, p in zip(x.shape[2:], padding, strict=True)]
    sizes = _sizes(x, weight, stride, padding, dilation)
    if not any(missing) or min(sizes) < 1:
        return F.conv3d(x, weight, bias, stride, padding, dilation, groups)
    longer = F.pad(x, [more for one in reversed(missing) for more in (0, one)])
    y = F.conv3d(longer, weight, bias, stride, padding, dilation, groups)
    return y[:, :, : sizes[0], : sizes[1], : sizes[2]]


def is_half_on_cpu(x: torch.Tensor) -> bool:
    """Whether ``x`` is convolved in half precision on the CPU."""
    return x.device.type == "cpu" and (x.dtype.itemsize == 2 or torch.is_autocast_enabled("cpu"))


def _sizes(x: torch.Tensor, weight: torch.Tensor, stride: _Three, padding: _Three, dilation: _Three) -> list[int]:
    """Of the result."""
    return [
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
