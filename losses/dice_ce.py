"""Dice and cross-entropy together."""

from __future__ import annotations

from torch import Tensor

from rarevox.losses.combined_table import CombinedTableLoss
from rarevox.losses.cross_entropy import mean_cross_entropy
from rarevox.losses.dice import dice
from rarevox.losses.sums import Columns, SumTable


class DiceCELoss(CombinedTableLoss):
    """2 (α DL + (1 − α) CE), by default the sum DL + CE; both terms come from one pass over the volume.

    DL is :class:`rarevox.losses.DiceLoss` (linear or squared denominator, its empty rule), CE the cross-entropy a
    voxel, of all classes whether or not the background takes part in the overlap.

    Args:
        alpha: the share of the Dice term; may be moved while training.
        squared: the squared denominator of the Dice term.
        batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Source: Isensee et al., "nnU-Net", Nature Methods 2021.

    >>> import torch
    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2: Dice loss of either class 1 − 2·1/(2 + 2) = 1/2, CE = log 2
    >>> round(DiceCELoss()(logits, torch.tensor([[[[0, 0], [1, 1]]]])).item(), 4)
    1.1931
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        squared: bool = False,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            alpha=alpha,
            batch=batch,
            include_background=include_background,
            sigmoid=sigmoid,
            ignore_index=ignore_index,
        )
        self.squared = squared
        self.columns = Columns(squares=squared, entropy=True)

    def term_costs(self, table: SumTable) -> dict[str, Tensor]:
        """``dice`` and ``cross_entropy`` of each row."""
        overlap = table if self.include_background else table.foreground()
        return {"dice": dice(overlap, squared=self.squared).mean(-1), "cross_entropy": mean_cross_entropy(table)}
