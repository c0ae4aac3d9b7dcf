"""Normalisation on sub-lattices: statistics over the whole sample or batch, never over one sub-lattice alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.blocks import BATCH_NORM
from rarevox.networks.lattices.deal import Padding, zero_outside_

MOMENTUM, EPSILON = 0.1, 1e-5


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

    def forward(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        """Normalise ``x``; ``batch`` is the number of samples that its first axis holds."""
        count, channels, *size = x.shape
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


class _MaskedBatchNorm(torch.autograd.Function):
    """Batch norm in training over the voxels inside a mask, for an input that is zero outside it.

    Over all N places, of which V lie inside, the kernel gives mean m and variance v of the zero-padded input. Those
    of the inside follow: mean = k·m and var = k·(v + m²) − (k·m)² with k = N / V. Backward, with g the incoming
    gradient and x̂ the normalised input: dβ = Σg, dγ = Σg·x̂, dx = γ/σ · (g − (dβ + x̂·dγ) / V) inside, 0 outside.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: Padding) -> Any:
        axes = [0, *range(2, x.ndim)]
        inside = padding.inside
        k = padding.mask.numel() / inside
        exact = torch.promote_types(x.dtype, torch.float32)
        padded_var, padded_mean = torch.var_mean(x.to(exact), dim=axes, correction=0)
        mean = k * padded_mean
        var = (k * (padded_var + padded_mean.square()) - mean.square()).clamp_min(0)
        y = zero_outside_(F.batch_norm(x, mean, var, weight, bias, training=False, eps=EPSILON), padding)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.padding = padding
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var * (inside / max(inside - 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        g = zero_outside_(gradients[0].clone(memory_format=torch.preserve_format), ctx.padding)
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            g, x, weight, mean, var, None, None, False, EPSILON, [True, True, True]
        )
        inverse = (var + EPSILON).rsqrt()
        scale = weight * inverse / ctx.padding.inside
        # F.batch_norm as an affine map: −scale · (dβ + (x − mean) · inverse · dγ)
        dx += F.batch_norm(x, mean, var, -scale * d_weight, -scale * d_bias, training=False, eps=EPSILON)
        return zero_outside_(dx, ctx.padding), d_weight, d_bias, None


def masked_batch_norm(x: torch.Tensor, norm: _BatchNorm, padding: Padding) -> torch.Tensor:
    """What ``norm``, a batch norm in training, gives for the voxels inside the volumes; zero outside.

    Args:
        x: (B', C, *spatial), zero outside.
        norm: a BatchNorm module with weight and bias; its running statistics are updated.
        padding: what lies outside.
    """
    y, mean, unbiased = _MaskedBatchNorm.apply(x, norm.weight, norm.bias, padding)
    update_running_statistics(norm, mean, unbiased)
    return y


def update_running_statistics(norm: _BatchNorm, mean: torch.Tensor, unbiased: torch.Tensor) -> None:
    """Take the mean and the unbiased variance of a batch, (C,), into the running statistics, if ``norm`` has them."""
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
            # PyTorch reads momentum None as the plain average over all batches so far.
            share = norm.momentum or 1.0 / float(norm.num_batches_tracked or 1)
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)


class SteadyStatistics:
    """Running statistics of batch norm that span enough patches, however few there are in a step.

    With a momentum of 0.1 they are those of the last ten steps or so, and with one patch a step evaluation depends on
    which patches these happened to be: 12 minutes of hippocampus at batch 1, augmented, ended at a Dice of 0.871, and
    at 0.890 with statistics over 100 patches. Step t of a training has the momentum max(1 / t, min(m, n / ``patches``))
    for n patches a step and the norm's own momentum m: a plain mean at first, in which the values before the first step
    leave no trace. A norm whose momentum is None keeps the plain mean.

    Args:
        network: its batch norms, of any kind.
        patches: that the statistics should span.

    >>> norm = nn.BatchNorm3d(4)
    >>> steady = SteadyStatistics(nn.Sequential(norm), patches=50)
    >>> steady(step=1, batch=1); norm.momentum
    1.0
    >>> steady(step=500, batch=1); norm.momentum
    0.02
    >>> steady(step=500, batch=8); norm.momentum
    0.1
    """

    def __init__(self, network: nn.Module, patches: int = 50) -> None:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self.norms = [(norm, norm.momentum) for norm in norms if norm.momentum is not None]
        self.patches = patches

    def __call__(self, *, step: int, batch: int) -> None:
        """Set the momentum for a step, counted from 1, of a number of patches."""
        for norm, momentum in self.norms:
            norm.momentum = max(1 / step, min(momentum, max(10 / step, batch / self.patches)))


class _ZeroOutside(torch.autograd.Function):
    """`zero_outside_` on a tensor that nothing else has kept, and the same on its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, padding: Padding) -> torch.Tensor:
        ctx.padding = padding
        ctx.mark_dirty(x)
        return zero_outside_(x, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return zero_outside_(gradients[0].clone(memory_format=torch.preserve_format), ctx.padding), None


def zero_outside(x: torch.Tensor, padding: Padding) -> torch.Tensor:
    """`zero_outside_` with a gradient; ``x`` is overwritten, so nothing else may have kept it for its backward."""
    return _ZeroOutside.apply(x, padding)
