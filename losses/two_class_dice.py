"""Two-class Dice loss (DL2 of the GDL paper): the overlap of a structure and the overlap of all the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.arithmetic import ratio
from rarevox.losses.sums import SumTable
from rarevox.losses.table_loss import TableLoss


class TwoClassDiceLoss(TableLoss):
    """DL2 = 1 − Σ p r / Σ (p + r) − Σ (1 − p)(1 − r) / Σ (2 − p − r), from 0 (perfect) to 1.

    Neither fraction has a factor 2, as printed. With more than two classes the formula is applied to each class but
    the background against all the rest, and averaged.

    Empty rule: a fraction whose reference is empty is taken as half the share of the volume not claimed for it,
    ½ (1 − Σ p / N), likewise for the rest, so an empty class that is not predicted costs nothing. (The printed ε
    would give −1/2 there.)

    Args:
        batch, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Source: Milletari et al. 2016 in the two-class form of Sudre et al. 2017.

    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2, reference one voxel of four
    >>> # 1 − 0.5 / (2 + 1) − 1.5 / (2 + 3) = 1 − 1/6 − 3/10 = 8/15
    >>> round(TwoClassDiceLoss()(logits, torch.tensor([[[[0, 0], [0, 1]]]])).item(), 6)
    0.533333
    """

    def __init__(self, *, batch: bool = False, sigmoid: bool = False, ignore_index: int | None = None) -> None:
        super().__init__(batch=batch, include_background=False, sigmoid=sigmoid, ignore_index=ignore_index)

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table: the mean over the foreground classes."""
        table = table.foreground()
        voxels, p, r, pr = table.voxels, table.probability, table.reference, table.intersection
        inside = _half_overlap(pr, p, r, voxels)
        outside = _half_overlap(voxels - p - r + pr, voxels - p, voxels - r, voxels)
        return (torch.where(voxels > 0, 1 - inside - outside, 0 * p)).mean(-1)


def _half_overlap(intersection: Tensor, claimed: Tensor, reference: Tensor, voxels: Tensor) -> Tensor:
    """Σ p r / Σ (p + r), or ½ (1 − Σ p / N) where the reference is empty."""
    unclaimed = (1 - ratio(claimed, voxels)) / 2
    return torch.where(reference > 0, ratio(intersection, claimed + reference), unclaimed)
