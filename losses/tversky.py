"""Tversky and focal Tversky losses: overlap with a price of its own for false positives and for false negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.arithmetic import overlap_or_claim, ratio
from rarevox.losses.options import check_positive
from rarevox.losses.sums import SumTable
from rarevox.losses.table_loss import TableLoss


class TverskyLoss(TableLoss):
    """TL = mean over classes of 1 − TP / (TP + α FP + β FN); TP = Σ p r, FP = Σ p (1 − r), FN = Σ (1 − p) r.

    α = β = 1/2 is the Dice loss; β > α prefers finding a voxel to leaving a false one out.

    Empty rule: as :class:`rarevox.losses.DiceLoss`: a class without reference costs the share of the volume claimed for
        it.

    Args:
        alpha: the price of a false positive, above 0.
        beta: the price of a false negative, above 0.
        batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Raises:
        ValueError: a price that is not a finite number above 0.

    Source: Salehi, Erdogmus, Gholipour, MLMI 2017 (α = 0.3, β = 0.7).

    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2, one voxel of four
    >>> # class 1: TP 0.5, FP 1.5, FN 0.5: 1 − 0.5 / (0.5 + 0.45 + 0.35) = 0.615385
    >>> loss = TverskyLoss(include_background=False)
    >>> round(loss(logits, torch.tensor([[[[0, 0], [0, 1]]]])).item(), 6)
    0.615385
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, sigmoid=sigmoid, ignore_index=ignore_index)
        self.alpha = check_positive("alpha", alpha)
        self.beta = check_positive("beta", beta)

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table: the mean over its classes."""
        if not self.include_background:
            table = table.foreground()
        return overlap_or_claim(table.reference == 0, self.price(table), table).mean(-1)

    def price(self, table: SumTable) -> Tensor:
        """1 − Tversky index of every class, as (α FP + β FN) / (TP + α FP + β FN)."""
        false_positive = (table.probability - table.intersection).clamp(min=0)
        false_negative = (table.reference - table.intersection).clamp(min=0)
        wrong = self.alpha * false_positive + self.beta * false_negative
        return ratio(wrong, table.intersection + wrong)


class FocalTverskyLoss(TverskyLoss):
    """FTL = mean over classes of (1 − TI)^(1/γ), TI the Tversky index of :class:`TverskyLoss`.

    γ > 1 keeps the gradient up for classes that already overlap well, γ < 1 turns to those that do not. A class
    whose price is below 1e-9 counts as solved: the slope of the power would be infinite there.

    Empty rule: as :class:`TverskyLoss`; the share claimed is not raised to a power.

    Args:
        gamma: γ, from 1/3 to 3.
        alpha, beta, batch, include_background, sigmoid, ignore_index: see :class:`TverskyLoss`.

    Raises:
        ValueError: γ outside 1/3 to 3, or a price that is not a finite number above 0.

    Source: Abraham and Khan, ISBI 2019 (γ = 4/3).

    >>> logits = torch.zeros(1, 2, 2, 2)  # 0.615385 ** 0.75
    >>> loss = FocalTverskyLoss(include_background=False)
    >>> round(loss(logits, torch.tensor([[[[0, 0], [0, 1]]]])).item(), 4)
    0.6948
    """

    def __init__(
        self,
        *,
        gamma: float = 4 / 3,
        alpha: float = 0.3,
        beta: float = 0.7,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            alpha=alpha,
            beta=beta,
            batch=batch,
            include_background=include_background,
            sigmoid=sigmoid,
            ignore_index=ignore_index,
        )
        if not 1 / 3 <= gamma <= 3:
            raise ValueError(f"gamma={gamma!r} is out of range; expected a number from 1/3 to 3")
        self.gamma = float(gamma)

    def price(self, table: SumTable) -> Tensor:
        """(1 − Tversky index)^(1/γ) of every class."""
        price = super().price(table)
        open_ = price > 1e-9
        return torch.where(open_, torch.where(open_, price, 1) ** (1 / self.gamma), 0)
