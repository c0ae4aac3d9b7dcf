"""The table of sums that every loss is arithmetic on, and its analytic gradient.

One pass over the volume gives, for each sample and class, Σwp, Σwr, Σwpr, Σwp², Σwp²r and the cross-entropy. The
backward pass turns the gradient of these few sums into the gradient of the logits. Both go through the volume in
pieces that fit the cache, where they can in one compiled kernel each; no one-hot tensor of the volume is ever built.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rarevox.losses.sums.checks import check_shapes, check_values
from rarevox.losses.sums.chunks import (
    Extremes,
    Span,
    Volume,
    flatten_voxels,
    merge_extremes,
    piece_extremes,
    softmax_piece,
)
from rarevox.losses.sums.cpu.overlap import compiled_fits, compiled_gradient, compiled_sums
from rarevox.losses.sums.pieces import piece_sums, write_gradient
from rarevox.losses.sums.table import CE, VOXELS, Columns, SumTable
from rarevox.losses.sums.triton.overlap import fused_fits, fused_gradient, fused_sums
from rarevox.losses.sums.workers import each_piece, scratch


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
        ignore_index: voxels with this label weigh nothing; it may lie outside the classes.
        entropy_weight: shaped as the labels, replaces ``weight`` in the ``cross_entropy`` column alone.
        columns: the optional columns wanted; by default squares and cross-entropy.

    Returns:
        The table, (B, C) or (B, C, 2); see :class:`SumTable`.

    Raises:
        ValueError: shapes that do not match, labels outside the classes, one class without ``sigmoid``, empty
            tensors, weights that are negative or not finite.
        NonFiniteLogitsError: the logits hold NaN or an infinity.

    Memory: the gradient, and nothing of its size beside it. Where PyTorch does the work, float32 and float64 take that
    memory from the forward pass on, for the probabilities that the gradient is then written over.
    The gradient is first order only: no double backward.

    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2 everywhere
    >>> labels = torch.tensor([[[[0, 0], [0, 1]]]])
    >>> table = overlap_sums(logits, labels)
    >>> table.probability.tolist(), table.reference.tolist(), table.intersection.tolist()
    ([[2.0, 2.0]], [[3.0, 1.0]], [[1.5, 0.5]])
    """
    check_shapes(logits, labels, weight, sigmoid=sigmoid)
    columns = Columns() if columns is None else columns
    # Half-precision logits are worked in float32, and keeping those probabilities would cost twice the logits; one
    # binary logit is cheap to work again, and 1 − p would lose the small class.
    full_precision = logits.dtype in (torch.float32, torch.float64)
    plain = entropy_weight is None and not columns.uniform and columns.focal_gamma is None
    fused = fused_fits(flatten_voxels(logits), labels, plain_columns=plain and not sigmoid)
    compiled = compiled_fits(logits, labels, plain_columns=plain)
    in_pieces = not (fused or compiled)
    keep = torch.is_grad_enabled() and logits.requires_grad and full_precision and not sigmoid and in_pieces
    options = _Options(sigmoid, ignore_index, columns, keep, fused, compiled)
    with torch.autocast(logits.device.type, enabled=False):
        stacked = _OverlapSums.apply(logits, labels, weight, entropy_weight, options)
    if sigmoid and logits.shape[1] > 1:
        stacked = stacked.unflatten(1, (logits.shape[0], logits.shape[1]))
    return SumTable(*stacked.unbind(0))


class _OverlapSums(torch.autograd.Function):
    """(columns, problems, classes) sums of the logits; backward writes the gradient over the kept probabilities."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        entropy_weight: Tensor | None,
        options: _Options,
    ) -> Tensor:
        volume = Volume(
            logits, labels, weight, entropy_weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index
        )
        kept = torch.empty_like(logits) if options.keep else None
        if options.fused or options.compiled:
            sums, extremes = _kernel_sums(volume, options)
        else:
            sums, extremes = _sum_pieces(volume, options.columns, kept)
        check_values(extremes, volume.classes)
        ctx.save_for_backward(logits, labels, weight, entropy_weight)
        ctx.options = options
        ctx.kept = kept
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, weight, entropy_weight = ctx.saved_tensors
        options: _Options = ctx.options
        # The probabilities are used up by the first backward; a second one (retain_graph) computes them again.
        kept, ctx.kept = ctx.kept, None
        volume = Volume(
            logits, labels, weight, entropy_weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index
        )
        with torch.autocast(logits.device.type, enabled=False):
            if options.fused or options.compiled:
                grad = _kernel_gradient(volume, options, grad_sums, logits)
            else:
                grad = _gradient_pieces(volume, options.columns, kept, grad_sums, logits)
        return grad, None, None, None, None


class _Options(NamedTuple):
    sigmoid: bool
    ignore_index: int | None
    columns: Columns
    keep: bool
    fused: bool
    compiled: bool

    def of_kernels(self) -> dict[str, Any]:
        """What the kernels are told, those of the CPU one thing more."""
        told = {
            "ignore_index": self.ignore_index,
            "squares": self.columns.squares,
            "entropy": self.columns.entropy,
        }
        return told | {"sigmoid": self.sigmoid} if self.compiled else told


def _voxels(volume: Volume, options: _Options) -> tuple[Tensor, Tensor, Tensor | None]:
    """The logits, the labels (problems, voxels) and the weight (B, voxels) as the kernels take them."""
    weight = None if volume.weight is None else volume.weight[:, 0].contiguous()
    if weight is not None and options.compiled:
        weight = weight.float()
    return volume.flat, volume.labels.flatten(0, 1).contiguous(), weight


def _kernel_sums(volume: Volume, options: _Options) -> tuple[Tensor, list[float]]:
    """The same as ``_sum_pieces`` by a kernel, whose columns are the first seven of the table."""
    logits, labels, weight = _voxels(volume, options)
    if options.compiled:
        sums, extremes = compiled_sums(logits, labels, weight, **options.of_kernels())
    else:
        sums, extremes = fused_sums(logits, labels, weight, **options.of_kernels())
    missing = sums.new_zeros((len(SumTable._fields) - sums.shape[0], *sums.shape[1:]))
    return torch.cat((sums, missing)), extremes


def _kernel_gradient(volume: Volume, options: _Options, grad_sums: Tensor, logits: Tensor) -> Tensor:
    """The same as ``_gradient_pieces`` by a kernel."""
    grad = torch.empty_like(logits)
    place, told = grad.view(volume.shape), options.of_kernels()
    if options.compiled:
        compiled_gradient(*_voxels(volume, options), grad_sums[: CE + 1], place, **told)
    else:
        fused_gradient(*_voxels(volume, options), grad_sums[: CE + 1], place, **told)
    return grad


def _sum_pieces(volume: Volume, columns: Columns, kept: Tensor | None) -> tuple[Tensor, list[float]]:
    """The stacked sums in float64 and the extremes that ``check_values`` reads; probabilities go to ``kept``."""
    device = volume.flat.device
    wide = torch.float32 if device.type == "mps" else torch.float64
    totals = torch.zeros(volume.problems, len(SumTable._fields), volume.classes, dtype=wide, device=device)
    kept_flat = None if kept is None else kept.view(volume.shape)

    def work(span: Span) -> tuple[dict[int, Tensor], Extremes]:
        piece = volume.piece(span)
        place = None if kept_flat is None else volume.at(kept_flat, span)
        z = piece.logits
        soft = softmax_piece(z, place, scratch("exponential", z.shape, z.dtype, z.device))
        return piece_sums(soft, piece, volume.reference(piece.labels), columns), piece_extremes(piece)

    spans = list(volume.spans())
    done = each_piece(work, spans, threads=volume.threads)
    problems = torch.tensor([span.problem for span in spans], device=device)
    totals[:, VOXELS] = volume.labels.shape[-1]
    for column in done[0][0]:
        of_pieces = torch.stack([sums[column] for sums, _ in done]).to(wide).view(len(spans), -1)
        into = totals[:, column]
        into.zero_().index_add_(0, problems, of_pieces.expand(-1, volume.classes))
    return totals.transpose(0, 1).contiguous(), merge_extremes([extremes for _, extremes in done])


def _gradient_pieces(
    volume: Volume, columns: Columns, kept: Tensor | None, grad_sums: Tensor, logits: Tensor
) -> Tensor:
    """The gradient of the logits, written piece by piece over ``kept`` where there is one."""
    grad = torch.empty_like(logits) if kept is None else kept
    grad_flat = grad.view(volume.shape)
    grad_sums = grad_sums.to(volume.dtype)

    def work(span: Span) -> None:
        piece = volume.piece(span)
        place = volume.at(grad_flat, span)
        p = softmax_piece(piece.logits).probability if kept is None else place.reshape(volume.classes, -1)
        write_gradient(p, piece, volume.reference(piece.labels), grad_sums[:, span.problem], columns, place)

    each_piece(work, volume.spans(), threads=volume.threads)
    return grad
