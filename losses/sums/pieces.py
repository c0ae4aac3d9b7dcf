"""The table of sums by PyTorch's operations, a piece of the volume at a time, for whatever no kernel can make.

A piece goes from its logits to its sums (`piece_sums`), and back from the gradient of the sums to that of its logits
(`write_gradient`); :class:`InPieces` goes through all pieces of a volume.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.sums.backend import Backend
from rarevox.losses.sums.checks import Extremes
from rarevox.losses.sums.chunks import (
    Piece,
    PieceExtremes,
    SoftmaxPiece,
    Span,
    Volume,
    merge_extremes,
    piece_extremes,
    softmax_piece,
)
from rarevox.losses.sums.table import CE, FOCAL, PP, PPR, PR, UNIFORM, VOXELS, Columns, P, R, SumTable
from rarevox.losses.sums.workers import each_piece, scratch


def worth_keeping(volume: Volume) -> bool:
    """Whether the probabilities are kept from the forward pass for the backward pass, in the gradient's memory.

    Half-precision logits are worked in float32, and keeping those probabilities would cost twice the logits; one binary
    logit is cheap to work again, and 1 − p would lose the small class.
    """
    return volume.logits.dtype in (torch.float32, torch.float64) and not volume.sigmoid


class InPieces(Backend):
    """PyTorch's operations on one piece after another, or on several at once, each by a thread of its own.

    Args:
        columns: the optional columns wanted.
        keep: keep the probabilities for the gradient, which is written over them.
    """

    def __init__(self, columns: Columns, *, keep: bool) -> None:
        super().__init__(columns)
        self.keep = keep
        self.kept: Tensor | None = None

    def sums(self, volume: Volume) -> tuple[Tensor, Extremes | Tensor]:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        self.kept = torch.empty_like(volume.logits) if self.keep else None
        kept = None if self.kept is None else self.kept.view(volume.shape)

        def work(span: Span) -> tuple[dict[int, Tensor], PieceExtremes]:
            piece = volume.piece(span)
            place = None if kept is None else volume.at(kept, span)
            z = piece.logits
            soft = softmax_piece(z, place, scratch("exponential", z.shape, z.dtype, z.device))
            return piece_sums(soft, piece, volume.reference(piece.labels), self.columns), piece_extremes(piece)

        done = each_piece(work, volume.spans(), threads=volume.threads)
        totals = _totals(volume, [sums for sums, _ in done])
        return totals, merge_extremes([extremes for _, extremes in done])

    def gradient(self, volume: Volume, grad_sums: Tensor) -> Tensor:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        # The probabilities are used up by the first backward; a second one (retain_graph) computes them again.
        kept, self.kept = self.kept, None
        grad = torch.empty_like(volume.logits) if kept is None else kept
        flat = grad.view(volume.shape)
        grad_sums = grad_sums.to(volume.dtype)

        def work(span: Span) -> None:
            piece = volume.piece(span)
            place = volume.at(flat, span)
            p = softmax_piece(piece.logits).probability if kept is None else place.reshape(volume.classes, -1)
            r = volume.reference(piece.labels)
            write_gradient(p, piece, r, grad_sums[:, span.problem], self.columns, place)

        each_piece(work, volume.spans(), threads=volume.threads)
        return grad


def _totals(volume: Volume, of_pieces: list[dict[int, Tensor]]) -> Tensor:
    """(columns, problems, K): the sums of the pieces added up, problem by problem, in the accumulators' precision.

    Every problem has as many pieces as the others, and they follow one another. So nothing that lies on the host's side
    (an index of problems, say) has to be sent to a device, for which the host would wait.
    """
    device = volume.logits.device
    totals = torch.zeros(
        volume.problems, len(SumTable._fields), volume.classes, dtype=volume.accumulator, device=device
    )
    totals[:, VOXELS] = volume.labels.shape[-1]  # without weights each voxel counts 1
    for column in of_pieces[0]:
        stacked = torch.stack([sums[column] for sums in of_pieces]).to(volume.accumulator)
        totals[:, column] = stacked.view(volume.problems, -1, stacked.numel() // len(of_pieces)).sum(1)
    return totals.transpose(0, 1).contiguous()


def piece_sums(soft: SoftmaxPiece, piece: Piece, r: Tensor, columns: Columns) -> dict[int, Tensor]:
    """The sums of one piece by their place in the table, (K,) each, from its softmax and its one-hot r (K, n).

    ``VOXELS``, the sum of the weights, is a single number, and left out where there are no weights.

    Products are summed along the rows and not multiplied as matrices: over 50,000 equal voxels the float32 matrix
    product was wrong by 2.7e-4, the pairwise sum by 3e-7.
    """
    p, w, spare = soft.probability, piece.weight, soft.spare
    pw, rw = (p, r) if w is None else (p * w, r * w)
    sums = {P: pw.sum(1), R: rw.sum(1), PR: torch.mul(pw, r, out=spare).sum(1)}
    if w is not None:
        sums[VOXELS] = w.sum()
    if columns.squares:
        sums[PPR] = spare.mul_(p).sum(1)
        sums[PP] = torch.mul(pw, p, out=spare).sum(1)
    if columns.entropy or columns.uniform or columns.focal_gamma is not None:
        surprisal = soft.surprisal(piece.logits)
        if columns.uniform:
            sums[UNIFORM] = (surprisal if w is None else surprisal * w).sum(1)
        if columns.focal_gamma is not None:
            missing = -torch.expm1(-surprisal)
            sums[FOCAL] = (surprisal * rw * missing**columns.focal_gamma).sum(1)
        if columns.entropy:
            share = rw if piece.entropy_weight is None else r * piece.entropy_weight
            sums[CE] = surprisal.mul_(share).sum(1)
    return sums


def write_gradient(p: Tensor, piece: Piece, r: Tensor, g: Tensor, columns: Columns, place: Tensor) -> None:
    """Write the gradient of one piece to ``place``, from the gradient ``g`` (columns, K) of its sums.

    With d_c = ∂/∂p_c = g_P + r g_PR + 2p (g_PP + r g_PPR), the chain through the softmax is
    ∂/∂z_k = w p_k (d_k − Σ_c p_c d_c); the cross-entropy adds w g_CE (p_k − r_k) with g_CE of the voxel's class.
    """
    # Twice as fast as one addcmul, which is not vectorised where two of its arguments are a column.
    d = torch.mul(r, g[PR, :, None], out=scratch("gradient", p.shape, p.dtype, p.device)).add_(g[P, :, None])
    if columns.squares:
        d.addcmul_(torch.mul(r, g[PPR, :, None]).add_(g[PP, :, None]), p, value=2)
    d *= p
    s = d.sum(0)
    if columns.uniform:
        s -= g[UNIFORM].sum()
        d -= g[UNIFORM, :, None]
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
        d += (p - r) * ((g[CE] @ r) * piece.entropy_weight)
    place.copy_(d[-place.shape[0] :].view(place.shape))


def _entropy_pull(p: Tensor, piece: Piece, r: Tensor, g: Tensor, columns: Columns) -> Tensor | None:
    """What (p − r) is multiplied by at each voxel, (n,): g_CE of its class, and for the focal column
    g_F (1 − p)^γ (1 + γ p (−log p) / (1 − p)), whose last factor tends to 1 as p does."""
    pull = g[CE] @ r if columns.entropy and piece.entropy_weight is None else None
    if columns.focal_gamma is None:
        return pull
    surprisal = (softmax_piece(piece.logits).surprisal(piece.logits) * r).sum(0)
    missing = -torch.expm1(-surprisal)
    ratio = torch.where(missing > 0, surprisal / missing, torch.ones_like(missing))
    focal = (g[FOCAL] @ r) * missing**columns.focal_gamma * (1 + columns.focal_gamma * (1 - missing) * ratio)
    return focal if pull is None else pull + focal
