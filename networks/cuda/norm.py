"""Batch norm in training with the activation after it, what is added then and the padding, in few passes over a GPU's
memory.

PyTorch reads a volume for the statistics, writes it normed and once more for the activation: 5 passes forward, 8 back.
Here these are 3 and 5, in two launches each: statistics, then all else; the sums of the gradient, then the gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from rarevox.compiled import is_eager
from rarevox.compiled.gpu import why_none
from rarevox.networks.cuda.launch import channels_last
from rarevox.networks.cuda.norm_passes import About, backward, forward

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Five passes saved over so many bytes take an H100's memory 50 µs. Four launches of Triton take the host about as much
# more than those that they replace (20 µs for 5 assumed; on the host of docs/gpu.md they meet at some 80 MiB), which
# counts where a step waits for the host and not in graphs, as training takes them.
LEAST_BYTES = 1 << 25
LARGEST_CHANNELS = 2048

_of_any_size: ContextVar[bool] = ContextVar("_of_any_size", default=False)


@contextlib.contextmanager
def in_graph() -> Iterator[None]:
    """For what is recorded as a CUDA graph, and warmed up for it: launches cost nothing, so volumes of any size fit.

    >>> with in_graph():
    ...     fits(torch.zeros(2, 2, 4, 4, 4), nn.BatchNorm3d(2), nn.ReLU())  # still not on a GPU
    False
    """
    token = _of_any_size.set(True)
    try:
        yield
    finally:
        _of_any_size.reset(token)


def fits(x: torch.Tensor, norm: nn.Module, activation: nn.Module, padded: bool = False) -> bool:
    """Whether `norm_act` takes these, and it pays.

    A volume on a GPU with the channels innermost, Triton, a batch norm as `knows` says, ReLU or PReLU, and a volume
    that is large, or padded: the statistics of what lies inside take PyTorch tens of launches.

    Args:
        x: (B', C, *spatial).
        norm, activation: what is applied.
        padded: whether some of ``x`` lies outside the volumes.
    """
    return (
        x.is_cuda
        and is_eager(x)  # before the sizes, which decide nothing where a program is recorded
        and knows(norm, activation)
        and x.ndim in (4, 5)
        and x.dtype in TYPES
        and (padded or is_large(x.numel() * x.element_size()))
        and x.shape[1] <= LARGEST_CHANNELS
        and x.numel() > x.shape[1]  # of one voxel there are no statistics, which PyTorch says
        and x.is_contiguous(memory_format=channels_last(x))
    )


def is_large(count_bytes: int) -> bool:
    """Whether so many bytes are worth the launches of `norm_act`, or launches cost nothing."""
    return count_bytes >= LEAST_BYTES or _of_any_size.get()


def knows(norm: nn.Module, activation: nn.Module) -> bool:
    """Whether there are kernels for these two: the batch norm of one process in training, its numbers in float32.

    >>> knows(nn.SyncBatchNorm(2), nn.ReLU()), knows(nn.BatchNorm3d(2).eval(), nn.ReLU())
    (False, False)
    """
    if not (type(norm) in NORMS and norm.training and isinstance(activation, (nn.ReLU, nn.PReLU))):
        return False
    assert isinstance(norm, NORMS)
    if norm.weight is None or norm.weight.dtype != torch.float32 or why_none() is not None:
        return False
    moving = norm.running_mean is not None and norm.track_running_stats
    # A momentum of None is the mean of all batches, whose number only the device knows.
    moves = isinstance(norm.momentum, float) and norm.num_batches_tracked is not None
    return (not moving or moves) and is_eager(norm.weight, norm.bias)


def norm_act(
    x: torch.Tensor,
    norm: nn.Module,
    activation: nn.Module,
    mask: torch.Tensor | None = None,
    inside: int | None = None,
    add: torch.Tensor | None = None,
) -> torch.Tensor:
    """act(norm(x)) + add, zero where the mask is; the running statistics are updated as PyTorch updates them.

    Args:
        x: (B', C, *spatial) as :func:`fits` asks. With more channels than the norm has, those after its own are zero,
            and zero in the result. What lies outside the volumes may be anything.
        norm: a batch norm in training.
        activation: ReLU, or PReLU with a slope for all channels or for each.
        mask: (B', 1, *spatial), 1 inside the volumes and 0 outside; None where nothing lies outside.
        inside: voxels where the mask is 1.
        add: (B', at most C, *spatial), added to the first channels; channels innermost, a crop of a larger volume.

    Returns:
        (B', C, *spatial) in the type of ``x``, rounded once from float32. ``x`` alone is kept for the backward pass.
    """
    assert isinstance(norm, NORMS)
    if add is not None and add.stride(1) != 1:
        add = add.contiguous(memory_format=channels_last(add))
    running = None
    if norm.track_running_stats and norm.running_mean is not None:
        assert norm.running_var is not None and norm.num_batches_tracked is not None
        running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    about = About(
        mask=None if mask is None else mask.contiguous(),
        inside=x.numel() // x.shape[1] if inside is None else inside,
        running=running,
        momentum=norm.momentum or 0.0,
        epsilon=norm.eps,
    )
    slope = activation.weight.expand_as(norm.weight) if isinstance(activation, nn.PReLU) else None
    y: torch.Tensor = _NormAct.apply(x, norm.weight, norm.bias, slope, add, about)
    return y


class _NormAct(torch.autograd.Function):
    """With x̂ = (x − mean) / √(var + ε), a = γ·x̂ + β: y = a where a > 0 and slope · a elsewhere, + add.

    Backward, g being what reaches y and g' = g where a > 0, slope · g elsewhere, over the N voxels inside: dβ = Σg',
    dγ = Σg'·x̂, dx = γ/√(var + ε) · (g' − (dβ + x̂·dγ) / N); the slope gets Σ g·a over a ≤ 0, and what was added g.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        slope: torch.Tensor | None,
        add: torch.Tensor | None,
        about: About,
    ) -> torch.Tensor:
        y, statistics = forward(x, weight, bias, slope, add, about)
        ctx.save_for_backward(x, weight, bias, slope, statistics)
        ctx.about = about
        ctx.added = None if add is None else add.shape[1]
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, bias, slope, statistics = ctx.saved_tensors
        about, g = ctx.about, gradients[0]
        of_add = None if ctx.added is None or not ctx.needs_input_grad[4] else g.narrow(1, 0, ctx.added)
        if of_add is not None and about.mask is not None:
            of_add = of_add * about.mask
        if torch.is_grad_enabled():  # a gradient is wanted of this gradient, of which the kernels know nothing
            wanted = [place for place in range(4) if ctx.needs_input_grad[place]]
            y, inputs = plain(x, weight, bias, slope, about), (x, weight, bias, slope)
            found = torch.autograd.grad(y, [inputs[place] for place in wanted], g, create_graph=True)
            by_place = dict(zip(wanted, found, strict=True))
            return (*(by_place.get(place) for place in range(4)), of_add, None)
        dx, of_parameters = backward(x, g, weight, bias, slope, statistics, about)
        return dx, of_parameters[0], of_parameters[1], None if slope is None else of_parameters[2], of_add, None


def plain(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, slope: torch.Tensor | None, about: About
) -> torch.Tensor:
    """The definition in PyTorch's operations, without what is added and without the running statistics."""
    axes, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
    more = x.shape[1] - weight.numel()
    gamma, beta, *slopes = (
        torch.nn.functional.pad(one, (0, more)).view(shape) for one in (weight, bias, slope) if one is not None
    )
    exact = x.float()
    inside = torch.ones_like(exact[:, :1]) if about.mask is None else about.mask.float()
    exact = torch.where(inside > 0, exact, 0.0)
    mean = exact.sum(axes, keepdim=True) / about.inside
    distance = (exact - mean) * inside
    variance = distance.square().sum(axes, keepdim=True) / about.inside
    a = distance * (variance + about.epsilon).rsqrt() * gamma + beta
    y = torch.where(a > 0, a, a * slopes[0] if slopes else torch.zeros_like(a))
    return (y * inside).to(x.dtype)
