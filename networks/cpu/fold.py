"""Batch norm in evaluation as an affine map, folded into what stands before or after it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.protocols import NormAct


class Folded(NamedTuple):
    """a = scale · x + shift, then a where a > 0 and slope · a elsewhere; each (C,).

    Args:
        scale: γ / √(var + ε).
        shift: β − mean · scale.
        slope: of PReLU; zeros for ReLU.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    slope: torch.Tensor


class KeptWeight(NamedTuple):
    """Weights with a norm's scale, and the norm."""

    weight: torch.Tensor
    folded: Folded


Kept = dict[nn.Module, KeptWeight]
"""Of convolutions, in one pass."""


def fold(layer: NormAct) -> Folded | None:
    """A batch norm in evaluation and the ReLU or PReLU after it; None for others.

    >>> from rarevox.networks.protocols import NormActPair
    >>> folded = fold(NormActPair(nn.BatchNorm3d(2, eps=0.0).eval(), nn.ReLU()))
    >>> [one.tolist() for one in folded]
    [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """
    norm, activation = layer.norm, layer.activation
    if not isinstance(norm, _BatchNorm) or norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    if not isinstance(activation, (nn.ReLU, nn.PReLU)):
        return None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    slope = activation.weight.expand_as(scale) if isinstance(activation, nn.PReLU) else torch.zeros_like(scale)
    return Folded(scale, norm.bias - norm.running_mean * scale, slope)
