"""Dice and focal cross-entropy together."""

from __future__ import annotations

import math

from torch import Tensor

from rarevox.losses.arithmetic import ratio
from rarevox.losses.combined_table import CombinedTableLoss
from rarevox.losses.dice import dice
from rarevox.losses.sums import Columns, SumTable


class DiceFocalLoss(CombinedTableLoss):
    """2 (α DL + (1 − α) FL), FL = −Σ_n w_n (1 − p_{n, y_n})^γ log p_{n, y_n} / Σ_n w_n over the softmax.

    DL is :class:`rarevox.losses.DiceLoss`, whose empty rule holds; FL needs none (see
    :class:`rarevox.losses.CrossEntropyLoss`). γ = 0 gives Dice and cross-entropy.

    Args:
        alpha: the share of the Dice term; may be moved while training.
        gamma: γ, from 0 on: how far voxels that are already right are discounted.
        squared: the squared denominator of the Dice term.
        batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Raises:
        ValueError: γ is negative or not finite.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017; Zhu et al., "AnatomyNet", 2019.

    >>> import torch
    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2: DL = 1/2, FL = (1/2)² log 2 = 0.1733
    >>> round(DiceFocalLoss()(logits, torch.tensor([[[[0, 0], [1, 1]]]])).item(), 4)
    0.6733
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        gamma: float = 2.0,
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
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma={gamma!r} is out of range; expected a finite number >= 0")
        self.gamma = float(gamma)
        self.squared = squared
        self.columns = Columns(squares=squared, entropy=False, focal_gamma=self.gamma)

    def term_costs(self, table: SumTable) -> dict[str, Tensor]:
        """``dice`` and ``focal`` of each row."""
        overlap = table if self.include_background else table.foreground()
        focal = ratio(table.focal.sum(-1), table.voxels[..., 0])
        return {"dice": dice(overlap, squared=self.squared).mean(-1), "focal": focal}
