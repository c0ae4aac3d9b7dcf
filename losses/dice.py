"""Soft Dice loss, averaged over the classes, with the linear or the squared denominator."""

from __future__ import annotations

from torch import Tensor

from rarevox.losses.arithmetic import overlap_or_claim, ratio
from rarevox.losses.sums import Columns, SumTable
from rarevox.losses.table_loss import TableLoss


class DiceLoss(TableLoss):
    """DL = mean over classes of 1 − 2 Σ p r / (Σ p + Σ r), or with ``squared`` 1 − 2 Σ p r / (Σ p² + Σ r²).

    Computed as (Σ p + Σ r − 2 Σ p r) / (Σ p + Σ r), without a smoothing constant.

    Empty rule: a class without reference costs the share of the volume claimed for it, Σ p / N (squared: Σ p² / N),
    so nothing claimed costs nothing and every voxel claimed is pushed away.

    Args:
        squared: the denominator of Milletari et al.; it weighs confident voxels more.
        batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Source: Milletari, Navab, Ahmadi, "V-Net", 3DV 2016 (squared); Drozdzal et al., DLMIA 2016 (linear).

    >>> import torch
    >>> logits = torch.tensor([[[100.0, 100.0, 100.0, -100.0], [-100.0, -100.0, -100.0, 100.0]]])  # 0 0 0 1
    >>> # reference 0 0 1 1: class 0: 1 − 2·2/5 = 0.2; class 1: 1 − 2·1/3 = 1/3; mean 4/15
    >>> round(DiceLoss()(logits, torch.tensor([[[0, 0, 1, 1]]])).item(), 6)
    0.266667
    """

    def __init__(
        self,
        *,
        squared: bool = False,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, sigmoid=sigmoid, ignore_index=ignore_index)
        self.squared = squared
        self.columns = Columns(squares=squared, entropy=False)

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table: the mean over its classes."""
        if not self.include_background:
            table = table.foreground()
        return dice(table, squared=self.squared).mean(-1)


def dice(table: SumTable, *, squared: bool = False) -> Tensor:
    """The Dice loss of every class, (…, classes) → (…, classes). Σ w r² is Σ w r, as r is 0 or 1."""
    claimed = table.probability_squared if squared else table.probability
    total = claimed + table.reference
    cost = ratio(total - 2 * table.intersection, total)
    return overlap_or_claim(table.reference == 0, cost, table, claimed)
