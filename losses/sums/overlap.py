"""The table of sums that every loss is arithmetic on, and its analytic gradient.

One pass over the volume gives, for each sample and class, Σwp, Σwr, Σwpr, Σwp², Σwp²r and the cross-entropy. The
backward pass turns the gradient of these few sums into the gradient of the logits. Both go through the volume in
pieces that fit the cache, where they can in one kernel each; no one-hot tensor of the volume is ever built.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rarevox.compiled import becomes_program
from rarevox.losses.sums import pieces
from rarevox.losses.sums.backend import Backend
from rarevox.losses.sums.checks import check_shapes, check_values
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.cpu import overlap as cpu
from rarevox.losses.sums.nested import is_nested, nested_labels
from rarevox.losses.sums.plain import plain_sums
from rarevox.losses.sums.table import Columns, SumTable
from rarevox.losses.sums.taken import take_down
from rarevox.losses.sums.triton import overlap as triton


def overlap_sums(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    sigmoid: bool = False,
    ignore_index: int | None = None,
    entropy_weight: Tensor | None = None,
    columns: Columns | None = None,
) -> SumTable:
    """Sum probabilities, references and their products over the voxels, differentiably.

    Args:
        logits: (B, C, *spatial) in float32, float64, bfloat16 or float16; two or three spatial axes (one works
            too); contiguous, channels-last or a crop. p = softmax over C, computed in float32 or better.
        labels: (B, 1, *spatial), whole numbers 0 … C − 1 of any integer or floating type.
        weight: (B, 1, *spatial), finite and not negative; no gradient flows to it. None means 1 everywhere.
        sigmoid: each logit is a two-class problem [rest, structure] of its own, p = [1 − sigmoid(z), sigmoid(z)].
            C = 1 gives a (B, 2) table; C > 1 takes labels (B, C, *spatial) of zeros and ones and gives (B, C, 2).
            Of C nested regions it takes depths (B, 1, *spatial) from 0 to C too: the label of logit k is depth ≥ k.
        ignore_index: voxels with this label weigh nothing; it may lie outside the classes.
        entropy_weight: shaped as the labels (of nested regions (B, C, *spatial)), replaces ``weight`` in the
            ``cross_entropy`` column alone.
        columns: the optional columns wanted; by default squares and cross-entropy.

    Returns:
        The table, (B, C) or (B, C, 2); see :class:`SumTable`.

    Raises:
        ValueError: shapes that do not match, labels outside the classes, one class without ``sigmoid``, empty
            tensors, weights that are negative or not finite.
        NonFiniteLogitsError: the logits hold NaN or an infinity.

    Memory: the gradient, and nothing of its size beside it. Where PyTorch does the work, float32 and float64 take that
    memory from the forward pass on, for the probabilities that the gradient is then written over.
    The gradient is first order only: no double backward. Where a program is recorded that will run on other numbers,
    PyTorch's plain operations are taken, see :func:`rarevox.losses.sums.plain.plain_sums`.

    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2 everywhere
    >>> labels = torch.tensor([[[[0, 0], [0, 1]]]])
    >>> table = overlap_sums(logits, labels)
    >>> table.probability.tolist(), table.reference.tolist(), table.intersection.tolist()
    ([[2.0, 2.0]], [[3.0, 1.0]], [[1.5, 0.5]])
    """
    check_shapes(logits, labels, weight, sigmoid=sigmoid)
    if is_nested(logits, labels, sigmoid=sigmoid):
        labels, ignore_index = nested_labels(labels, logits.shape[1], ignore_index)
    columns = Columns() if columns is None else columns
    if becomes_program():
        with torch.autocast(logits.device.type, enabled=False):
            return plain_sums(
                logits,
                labels,
                weight,
                sigmoid=sigmoid,
                ignore_index=ignore_index,
                entropy_weight=entropy_weight,
                columns=columns,
            )
    # Asked here, since gradients are always off inside an autograd function's forward.
    differentiable = torch.is_grad_enabled() and logits.requires_grad
    options = _Options(sigmoid, ignore_index, columns, differentiable)
    with torch.autocast(logits.device.type, enabled=False):
        stacked = _OverlapSums.apply(logits, labels, weight, entropy_weight, options)
    if sigmoid and logits.shape[1] > 1:
        stacked = stacked.unflatten(1, (logits.shape[0], logits.shape[1]))
    return SumTable(*stacked.unbind(0))


def backend_for(volume: Volume, columns: Columns, *, differentiable: bool) -> Backend:
    """Kernels where there are some for this table and this device, else PyTorch's operations, which are for all.

    >>> volume = Volume(torch.zeros(1, 2, 8).double(), torch.zeros(1, 1, 8))  # no kernels take float64
    >>> type(backend_for(volume, Columns(), differentiable=True)).__name__
    'InPieces'
    """
    if triton.fits(volume, columns):
        return triton.TritonKernels(columns)
    if cpu.fits(volume, columns):
        return cpu.CompiledKernels(columns)
    return pieces.InPieces(columns, keep=differentiable and pieces.worth_keeping(volume))


def way_of(backend: Backend, volume: Volume) -> str:
    """How a table is made, for a log; of PyTorch's operations also why no kernel makes it.

    >>> volume = Volume(torch.zeros(1, 2, 8).double(), torch.zeros(1, 1, 8))
    >>> way_of(backend_for(volume, Columns(), differentiable=True), volume)
    "PyTorch's operations (no kernel for float64 on cpu)"
    """
    if isinstance(backend, triton.TritonKernels):
        return "Triton's kernels"
    if isinstance(backend, cpu.CompiledKernels):
        return "compiled kernels"
    on_cuda, columns = volume.logits.is_cuda, backend.columns
    most = triton.LARGEST_CLASSES if on_cuda else cpu.LARGEST_CLASSES
    dtype = str(volume.logits.dtype).removeprefix("torch.")
    reasons = {
        "no kernel makes the focal term": columns.focal_gamma is not None,
        "no kernel smooths labels": columns.uniform,
        f"{volume.classes} classes, and kernels take {most}": volume.classes > most,
        "no kernel for voxels chosen by their loss": volume.entropy_weight is not None and not on_cuda,
        triton.why_none() or "": on_cuda and triton.why_none() is not None,
        "Numba is not installed, or its kernels cannot be built": volume.logits.device.type == "cpu"
        and not cpu.are_there(),
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    return f"PyTorch's operations ({reason or f'no kernel for {dtype} on {volume.logits.device.type}'})"


class _Options(NamedTuple):
    sigmoid: bool
    ignore_index: int | None
    columns: Columns
    differentiable: bool


class _Context(Protocol):
    """What the forward pass leaves for the backward pass."""

    backend: Backend
    options: _Options
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Autograd's own."""


class _OverlapSums(torch.autograd.Function):
    """(columns, problems, classes) sums of the logits."""

    @staticmethod
    def forward(
        ctx: _Context,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        entropy_weight: Tensor | None,
        options: _Options,
    ) -> Tensor:
        volume = Volume(
            logits, labels, weight, entropy_weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index
        )
        backend = backend_for(volume, options.columns, differentiable=options.differentiable)
        take_down(way_of(backend, volume))
        sums, extremes = backend.sums(volume)
        check_values(extremes, volume.classes)
        ctx.save_for_backward(logits, labels, weight, entropy_weight)
        ctx.options, ctx.backend = options, backend
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        volume = Volume(*ctx.saved_tensors, sigmoid=ctx.options.sigmoid, ignore_index=ctx.options.ignore_index)
        with torch.autocast(volume.logits.device.type, enabled=False):
            grad = ctx.backend.gradient(volume, grad_sums)
        return grad, None, None, None, None
