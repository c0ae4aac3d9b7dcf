"""Generalised Dice and cross-entropy together: the project's default loss (with ``batch=True``)."""

from __future__ import annotations

from torch import Tensor

from rarevox.losses.combined_table import CombinedTableLoss
from rarevox.losses.cross_entropy import mean_cross_entropy
from rarevox.losses.gdl import GeneralizedDiceLoss
from rarevox.losses.sums import SumTable


class GeneralizedDiceCELoss(CombinedTableLoss):
    """2 (α GDL + (1 − α) CE), by default the sum GDL + CE; both terms come from one pass over the volume.

    Args:
        alpha: the share of the generalised Dice term; may be moved while training.
        weighting: of the generalised Dice term, see :class:`rarevox.losses.GeneralizedDiceLoss`, whose empty rule
            holds.
        batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    >>> import torch
    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2: GDL = 1 − 2·(1 + 1)/(4 + 4) = 1/2, CE = log 2
    >>> round(GeneralizedDiceCELoss()(logits, torch.tensor([[[[0, 0], [1, 1]]]])).item(), 4)
    1.1931
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        weighting: str = "square",
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
        self.overlap = GeneralizedDiceLoss(weighting=weighting, include_background=include_background)

    def term_costs(self, table: SumTable) -> dict[str, Tensor]:
        """``generalized_dice`` and ``cross_entropy`` of each row."""
        return {"generalized_dice": self.overlap.cost(table), "cross_entropy": mean_cross_entropy(table)}
