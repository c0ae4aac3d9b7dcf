"""The table of sums that every loss is arithmetic on, and its analytic gradient.

One pass over the volume gives, for each sample and class, Σwp, Σwr, Σwpr, Σwp², Σwp²r and the cross-entropy. The
backward pass turns the gradient of these few sums into the gradient of the logits. Both go through the volume in
pieces that fit the cache; no one-hot tensor of the volume is ever built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.checks import check_shapes, check_values
from losses.chunks import Extremes, Piece, SoftmaxPiece, Span, Volume, merge_extremes, piece_extremes, softmax_piece
from losses.pages import empty_gradient
from losses.workers import each_piece, scratch


class SumTable(NamedTuple):
    """Sums over the voxels, one for each sample and class: (B, C), or (B, L, 2) for L labels that may overlap.

    p is the probability of the class, r its reference (1 where the label names it, else 0), w the voxel weight (1
    where none is given, 0 under the ignore label). Float64, except on devices that have none (float32).

    Attributes:
        voxels: Σ w, the same for every class.
        probability: Σ w p.
        reference: Σ w r.
        intersection: Σ w p r.
        probability_squared: Σ w p².
        intersection_squared: Σ w p² r.
        cross_entropy: −Σ w r log p (nats); with an ``entropy_weight`` in place of w where one is given.
        uniform_cross_entropy: −Σ w log p, for label smoothing.
        focal: −Σ w r (1 − p)^γ log p.

    A column that was not asked for holds zeros.
    """

    voxels: Tensor
    probability: Tensor
    reference: Tensor
    intersection: Tensor
    probability_squared: Tensor
    intersection_squared: Tensor
    cross_entropy: Tensor
    uniform_cross_entropy: Tensor
    focal: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> SumTable:
        """The table with ``change`` applied to every column."""
        return SumTable(*(change(column) for column in self))

    def pooled(self) -> SumTable:
        """The sums of the whole batch, as a batch of one: sums add up."""
        return self.map(lambda column: column.sum(0, keepdim=True))

    def foreground(self) -> SumTable:
        """The table without class 0."""
        return self.map(lambda column: column[..., 1:])


_VOXELS, _P, _R, _PR, _PP, _PPR, _CE, _UNIFORM, _FOCAL = range(len(SumTable._fields))


class Columns(NamedTuple):
    """Which of the optional columns a loss needs; each costs a pass over the piece, forward and backward."""

    squares: bool = True
    entropy: bool = True
    uniform: bool = False
    focal_gamma: float | None = None


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

    Memory: one tensor the size of the logits between forward and backward, which becomes the gradient in place.
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
    keep = torch.is_grad_enabled() and logits.requires_grad and full_precision and not sigmoid
    options = _Options(sigmoid, ignore_index, columns, keep)
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
        kept = empty_gradient(logits) if options.keep else None
        sums, extremes = _sum_pieces(volume, options.columns, kept)
        check_values(merge_extremes(extremes), volume.classes)
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
            grad = _gradient_pieces(volume, options.columns, kept, grad_sums, logits)
        return grad, None, None, None, None


class _Options(NamedTuple):
    sigmoid: bool
    ignore_index: int | None
    columns: Columns
    keep: bool


def _sum_pieces(volume: Volume, columns: Columns, kept: Tensor | None) -> tuple[Tensor, list[Extremes]]:
    """The stacked sums in float64 and the extremes of every piece; probabilities go to ``kept``."""
    device = volume.flat.device
    wide = torch.float32 if device.type == "mps" else torch.float64
    totals = torch.zeros(volume.problems, len(SumTable._fields), volume.classes, dtype=wide, device=device)
    kept_flat = None if kept is None else kept.view(volume.shape)

    def work(span: Span) -> tuple[Tensor, Extremes]:
        piece = volume.piece(span)
        place = None if kept_flat is None else volume.at(kept_flat, span)
        soft = softmax_piece(piece.logits, place, scratch("exponential", piece.logits))
        sums = _piece_sums(soft, piece, volume.reference(piece.labels), columns)
        return sums, piece_extremes(piece)

    spans = list(volume.spans())
    done = each_piece(work, spans, threads=volume.threads)
    for span, (sums, _) in zip(spans, done, strict=True):
        totals[span.problem] += sums.to(wide)
    return totals.transpose(0, 1).contiguous(), [extremes for _, extremes in done]


def _piece_sums(soft: SoftmaxPiece, piece: Piece, r: Tensor, columns: Columns) -> Tensor:
    """The sums of one piece, (columns, K), from its softmax and its one-hot reference r (K, n).

    Products are summed along the rows and not multiplied as matrices: over 50,000 equal voxels the float32 matrix
    product was wrong by 2.7e-4, the pairwise sum by 3e-7.
    """
    p, w, spare = soft.probability, piece.weight, soft.spare
    pw, rw = (p, r) if w is None else (p * w, r * w)
    zeros = torch.zeros(p.shape[0], dtype=p.dtype, device=p.device)
    sums = [zeros] * len(SumTable._fields)
    sums[_VOXELS] = zeros + (p.shape[1] if w is None else w.sum())
    sums[_P] = pw.sum(1)
    sums[_R] = rw.sum(1)
    sums[_PR] = torch.mul(pw, r, out=spare).sum(1)
    if columns.squares:
        sums[_PPR] = spare.mul_(p).sum(1)
        sums[_PP] = torch.mul(pw, p, out=spare).sum(1)
    if columns.entropy or columns.uniform or columns.focal_gamma is not None:
        surprise = soft.surprise(piece.logits)
        if columns.uniform:
            sums[_UNIFORM] = (surprise if w is None else surprise * w).sum(1)
        if columns.focal_gamma is not None:
            missing = -torch.expm1(-surprise)
            sums[_FOCAL] = (surprise * rw * missing**columns.focal_gamma).sum(1)
        if columns.entropy:
            share = rw if piece.entropy_weight is None else r * piece.entropy_weight
            sums[_CE] = surprise.mul_(share).sum(1)
    return torch.stack(sums)


def _gradient_pieces(
    volume: Volume, columns: Columns, kept: Tensor | None, grad_sums: Tensor, logits: Tensor
) -> Tensor:
    """The gradient of the logits, written piece by piece over ``kept`` where there is one."""
    grad = empty_gradient(logits) if kept is None else kept
    grad_flat = grad.view(volume.shape)
    grad_sums = grad_sums.to(volume.dtype)

    def work(span: Span) -> None:
        piece = volume.piece(span)
        place = volume.at(grad_flat, span)
        p = softmax_piece(piece.logits).probability if kept is None else place.reshape(volume.classes, -1)
        _write_gradient(p, piece, volume.reference(piece.labels), grad_sums[:, span.problem], columns, place)

    each_piece(work, volume.spans(), threads=volume.threads)
    return grad


def _write_gradient(p: Tensor, piece: Piece, r: Tensor, g: Tensor, columns: Columns, place: Tensor) -> None:
    """Write the gradient of one piece to ``place``, from the gradient ``g`` (columns, K) of its sums.

    With d_c = ∂/∂p_c = g_P + r g_PR + 2p (g_PP + r g_PPR), the chain through the softmax is
    ∂/∂z_k = w p_k (d_k − Σ_c p_c d_c); the cross-entropy adds w g_CE (p_k − r_k) with g_CE of the voxel's class.
    """
    d = torch.addcmul(g[_P, :, None], r, g[_PR, :, None], out=scratch("gradient", p))
    if columns.squares:
        d.addcmul_(torch.addcmul(g[_PP, :, None], r, g[_PPR, :, None]), p, value=2)
    d *= p
    s = d.sum(0)
    if columns.uniform:
        s -= g[_UNIFORM].sum()
        d -= g[_UNIFORM, :, None]
    pull = _entropy_pull(p, piece, r, g, columns)
    if pull is not None:
        s -= pull
        d.addcmul_(r, pull, value=-1)
    direct = piece.weight is None and piece.entropy_weight is None and place.shape == d.shape and place.dtype == d.dtype
    if direct:
        torch.addcmul(d, p, s, value=-1, out=place)
        return
    d.addcmul_(p, s, value=-1)
    if piece.weight is not None:
        d *= piece.weight
    if piece.entropy_weight is not None and columns.entropy:
        d += (p - r) * ((g[_CE] @ r) * piece.entropy_weight)
    place.copy_(d[-place.shape[0] :].view(place.shape))


def _entropy_pull(p: Tensor, piece: Piece, r: Tensor, g: Tensor, columns: Columns) -> Tensor | None:
    """What (p − r) is multiplied by at each voxel, (n,): g_CE of its class, and for the focal column
    g_F (1 − p)^γ (1 + γ p (−log p) / (1 − p)), whose last factor tends to 1 as p does."""
    pull = g[_CE] @ r if columns.entropy and piece.entropy_weight is None else None
    if columns.focal_gamma is None:
        return pull
    surprise = (softmax_piece(piece.logits).surprise(piece.logits) * r).sum(0)
    missing = -torch.expm1(-surprise)
    ratio = torch.where(missing > 0, surprise / missing, torch.ones_like(missing))
    focal = (g[_FOCAL] @ r) * missing**columns.focal_gamma * (1 + columns.focal_gamma * (1 - missing) * ratio)
    return focal if pull is None else pull + focal
