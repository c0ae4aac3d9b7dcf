"""Residual blocks in evaluation on the CPU with every convolution one pass over the memory.

Norm, activation and the sum with the identity are done by `rarevox.networks.cpu.winograd.convolution` on the way into
its convolutions and out of them, and the tensors of a scan take the same memory one after another: a page that the
system gives anew costs as much as the arithmetic on it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.cpu import volumes
from rarevox.networks.cpu.volumes import LANES
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.cpu.winograd.convolution import Around


class Spare:
    """Memory that the tensors of one pass take one after another.

    >>> spare = Spare()
    >>> first = spare.take("y", (1, 2, 3, 4, 5))
    >>> spare.take("y", (1, 1, 3, 4, 5)).data_ptr() == first.data_ptr()
    True
    """

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor of `rarevox.networks.cpu.volumes.channels_last` in the memory of the name."""
        length = volumes.numbers(shape)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < length:
            memory = self._memory[name] = torch.empty(length)
        return volumes.channels_last(shape, memory)


def norm_of(norm: nn.Module, activation: nn.Module) -> torch.Tensor | None:
    """(3, C), scale, shift and slope of a batch norm in evaluation and of the ReLU or PReLU after it; None for others.

    >>> norm_of(nn.BatchNorm3d(2, eps=0.0).eval(), nn.ReLU()).tolist()
    [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """
    if not isinstance(norm, _BatchNorm) or norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    if not isinstance(activation, (nn.ReLU, nn.PReLU)):
        return None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    slope = activation.weight.expand_as(scale) if isinstance(activation, nn.PReLU) else torch.zeros_like(scale)
    return torch.stack([scale, norm.bias - norm.running_mean * scale, slope])


def residual_block(
    x: torch.Tensor,
    norms: tuple[torch.Tensor | None, torch.Tensor | None],
    weights: tuple[torch.Tensor, torch.Tensor],
    extents: torch.Tensor | None,
    spare: Spare,
    name: str,
) -> torch.Tensor | None:
    """Twice (norm, activation, 3³ convolution) plus the identity in the middle channels; None if it does not pay.

    Args:
        x: (B, C, D, H, W); overwritten by the result where the channels do not grow.
        norms: what `norm_of` gives for the two.
        weights: (C', C, 3, 3, 3) and (C', C', 3, 3, 3).
        extents: what of each sample lies inside, as `rarevox.networks.cpu.winograd.convolution.Around` takes it.
        spare: where the tensors in between and a result with more channels lie.
        name: they share the memory of other blocks of this name, so that these must be done with.
    """
    first, second = norms
    channels = weights[0].shape[0]
    more = channels - x.shape[1]
    aligned = more == 0 or (more // 2 % LANES == 0 and x.shape[1] % LANES == 0)
    if first is None or second is None or not aligned:
        return None
    if not winograd.pays(x, weights[0], (1, 1, 1)):
        return None
    # One input channel has no order of the axes: PyTorch's convolution of it may put the channels first.
    x = x.contiguous(memory_format=torch.channels_last_3d)
    shape = (x.shape[0], channels, *x.shape[2:])
    scale, shift, slope = second
    y = winograd.convolve(
        x,
        weights[0] * scale.view(-1, 1, 1, 1, 1),
        1,
        Around(norm=first, bias=torch.stack([shift, slope]), extents=extents),
        out=spare.take(f"{name} between", shape),
    )
    out = x if more == 0 else spare.take(f"{name} result", shape)
    return winograd.convolve(y, weights[1], 1, Around(add=x, first=more // 2, extents=extents), out=out)
