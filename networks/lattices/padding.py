"""What lies outside the volumes when their sizes are not divisible by the dilation: kept out, and kept zero."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.lattices.deal import pad_to_multiple, to_lattices
from rarevox.networks.lattices.side_by_side import clear_planes_


@dataclass(frozen=True)
class Padding:
    """What lies outside the volumes after `pad_to_multiple`, wherever their voxels are dealt to.

    Args:
        mask: (B', 1, *spatial), 1 inside the volumes and 0 outside.
        reach: for each axis, how many of the last places can lie outside.
        inside: the number of voxels inside, all samples together.
        extents: (B', n), for each sample and axis how many of the first places lie inside.
    """

    mask: torch.Tensor
    reach: tuple[int, ...]
    inside: int
    extents: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, multiple: int) -> Padding | None:
        """The padding that `pad_to_multiple` would give to ``x`` (B, C, *spatial); None if there is none.

        >>> Padding.of(torch.zeros(2, 3, 5, 8), 4).reach
        (3, 0)
        """
        reach = tuple((-length) % multiple for length in x.shape[2:])
        if not any(reach):
            return None
        mask = torch.ones((x.shape[0], 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
        extents = torch.tensor(x.shape[2:]).expand(x.shape[0], -1)
        return cls(pad_to_multiple(mask, multiple), reach, mask.numel(), extents)

    def dealt(self, factor: int) -> Padding:
        """The padding after `to_lattices` with ``factor``."""
        offsets = torch.cartesian_prod(*[torch.arange(factor)] * len(self.reach)).view(1, -1, len(self.reach))
        return replace(
            self,
            mask=to_lattices(self.mask, factor),
            reach=tuple(-(-n // factor) for n in self.reach),
            extents=((self.extents[:, None] - offsets + factor - 1) // factor).flatten(0, 1),
        )

    def rows(self, start: int, stop: int) -> Padding:
        """The padding of some sub-lattices (``inside`` still counts all)."""
        return replace(self, mask=self.mask[start:stop], extents=self.extents[start:stop])


def zero_outside_(x: torch.Tensor, padding: Padding) -> torch.Tensor:
    """Set to zero, in place, what lies outside the volume.

    Only the last few places of each axis can lie outside, so the cost is that of faces, not of the volume.
    """
    for axis, reach in enumerate(padding.reach, start=2):
        if reach:
            start = max(0, x.shape[axis] - reach)
            length = x.shape[axis] - start
            x.narrow(axis, start, length).mul_(padding.mask.narrow(axis, start, length))
    return x


@dataclass(frozen=True)
class Layout:
    """How the voxels lie in the tensor at hand.

    Args:
        batch: the samples in it; None where every row of the batch axis is one.
        on_lattices: whether they are dealt out to sub-lattices, so that no convolution is dilated any more.
        padding: what lies outside the volumes; None without padding.
        planes: what lies between sub-lattices that stand side by side, in evaluation alone; see
            `rarevox.networks.lattices.side_by_side.planes_between`.
    """

    batch: int | None = None
    on_lattices: bool = False
    padding: Padding | None = None
    planes: tuple[tuple[int, ...], ...] = ()

    def dealt(self, factor: int) -> Layout:
        """The layout after `to_lattices` with ``factor``."""
        return replace(self, on_lattices=True, padding=self.padding and self.padding.dealt(factor))

    def rows(self, start: int, stop: int) -> Layout:
        """The layout of some sub-lattices alone, each taken for a sample (for evaluation with batch norm)."""
        return replace(self, batch=stop - start, padding=self.padding and self.padding.rows(start, stop))

    def clear(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, a tensor that nothing else has kept, with zeros in the padding, in place."""
        clear_planes_(x, self.planes)
        if self.padding is None:
            return x
        return zero_outside(x, self.padding) if torch.is_grad_enabled() else zero_outside_(x, self.padding)


WHOLE = Layout()
"""Volumes as they are, each a row of the batch axis, without padding."""


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


class _MaskedBatchNorm(torch.autograd.Function):
    """Batch norm in training over the voxels inside a mask, for an input that is zero outside it.

    Over all N places, of which V lie inside, the kernel gives mean m and variance v of the zero-padded input. Those
    of the inside follow: mean = k·m and var = k·(v + m²) − (k·m)² with k = N / V. Backward, with g the incoming
    gradient and x̂ the normalised input: dβ = Σg, dγ = Σg·x̂, dx = γ/σ · (g − (dβ + x̂·dγ) / V) inside, 0 outside.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: Padding, epsilon: float
    ) -> Any:
        axes = [0, *range(2, x.ndim)]
        inside = padding.inside
        k = padding.mask.numel() / inside
        exact = torch.promote_types(x.dtype, torch.float32)
        padded_var, padded_mean = torch.var_mean(x.to(exact), dim=axes, correction=0)
        mean = k * padded_mean
        var = (k * (padded_var + padded_mean.square()) - mean.square()).clamp_min(0)
        y = zero_outside_(F.batch_norm(x, mean, var, weight, bias, training=False, eps=epsilon), padding)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.padding, ctx.epsilon = padding, epsilon
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var * (inside / max(inside - 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        g = zero_outside_(gradients[0].clone(memory_format=torch.preserve_format), ctx.padding)
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            g, x, weight, mean, var, None, None, False, ctx.epsilon, [True, True, True]
        )
        inverse = (var + ctx.epsilon).rsqrt()
        scale = weight * inverse / ctx.padding.inside
        # F.batch_norm as an affine map: −scale · (dβ + (x − mean) · inverse · dγ)
        dx += F.batch_norm(x, mean, var, -scale * d_weight, -scale * d_bias, training=False, eps=ctx.epsilon)
        return zero_outside_(dx, ctx.padding), d_weight, d_bias, None, None


def masked_batch_norm(x: torch.Tensor, norm: _BatchNorm, padding: Padding) -> torch.Tensor:
    """What ``norm``, a batch norm in training, gives for the voxels inside the volumes; zero outside.

    Args:
        x: (B', C, *spatial), zero outside.
        norm: a BatchNorm module with weight and bias; its running statistics are updated.
        padding: what lies outside.
    """
    y, mean, unbiased = _MaskedBatchNorm.apply(x, norm.weight, norm.bias, padding, norm.eps)
    update_running_statistics(norm, mean, unbiased)
    return y


def update_running_statistics(norm: _BatchNorm, mean: torch.Tensor, unbiased: torch.Tensor) -> None:
    """Take the mean and the unbiased variance of a batch, (C,), into the running statistics, if ``norm`` has them."""
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
            share = norm.momentum
            if share is None:  # which PyTorch reads as the plain average over all batches so far
                share = 1.0 / float(1 if norm.num_batches_tracked is None else norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
