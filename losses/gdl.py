"""Generalised Dice loss (Sudre et al. 2017): overlap in which every class counts alike whatever its volume."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.arithmetic import ratio
from rarevox.losses.sums import SumTable
from rarevox.losses.table_loss import TableLoss

_POWERS = {"square": 2, "simple": 1, "uniform": 0}


class GeneralizedDiceLoss(TableLoss):
    """GDL = 1 − 2 Σ_l w_l Σ_n r_ln p_ln / Σ_l w_l Σ_n (r_ln + p_ln), with w_l = 1/V_l², 1/V_l or 1, V_l = Σ_n r_ln.

    The weights are divided by the largest one, w_l = (V_min / V_l)², which changes nothing in the fraction and keeps
    every figure near the volumes themselves, so no smoothing constant is needed at any volume.

    Empty rule: a class without reference takes the largest weight among those that have one, so predicting it
    enlarges the denominator and is unlearnt; where no class that takes part has a reference, the loss is the share of
    the volume claimed for them, Σ_l Σ_n p_ln / N. A class neither there nor predicted costs nothing.

    Args:
        weighting: "square" (GDL_v of the paper), "simple" (1/V) or "uniform" (1).
        batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Raises:
        ValueError: an unknown weighting.

    Source: Sudre, Li, Vercauteren, Ourselin, Cardoso, "Generalised Dice overlap as a deep learning loss function for
    highly unbalanced segmentations", DLMIA 2017.

    >>> logits = torch.tensor([[[100.0, 100.0, 100.0, -100.0], [-100.0, -100.0, -100.0, 100.0]]])  # 0 0 0 1
    >>> GeneralizedDiceLoss()(logits, torch.tensor([[[0, 0, 0, 1]]])).item()
    0.0
    >>> # reference 0 0 1 1: w = 1/4 and 1/4; 1 − 2 (2 + 1) / (2 + 3 + 2 + 1) = 1/4
    >>> GeneralizedDiceLoss()(logits, torch.tensor([[[0, 0, 1, 1]]])).item()
    0.25
    """

    def __init__(
        self,
        *,
        weighting: str = "square",
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, sigmoid=sigmoid, ignore_index=ignore_index)
        if weighting not in _POWERS:
            raise ValueError(f"weighting={weighting!r} is unknown; expected one of {', '.join(_POWERS)}")
        self.weighting = weighting

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table."""
        if not self.include_background:
            table = table.foreground()
        return generalized_dice(table, _POWERS[self.weighting])


def generalized_dice(table: SumTable, power: int) -> Tensor:
    """GDL of each row, (…, classes) → (…), with weights 1 / volume^power."""
    weights = class_weights(table.reference.detach(), power)
    overlap = (weights * table.intersection).sum(-1)
    total = (weights * (table.probability + table.reference)).sum(-1)
    present = (table.reference > 0).any(-1)
    claimed = ratio(table.probability.sum(-1), table.voxels[..., 0])
    return torch.where(present, ratio(total - 2 * overlap, total), claimed)


def class_weights(volumes: Tensor, power: int) -> Tensor:
    """(V_min / V_l)^power with V_min the smallest volume present; 1, the largest of them, for a class without volume.

    >>> class_weights(torch.tensor([[400.0, 4.0, 0.0]], dtype=torch.float64), 2).tolist()
    [[0.0001, 1.0, 1.0]]
    """
    present = volumes > 0
    smallest = torch.where(present, volumes, torch.inf).amin(-1, keepdim=True)
    return torch.where(present, smallest / torch.where(present, volumes, 1), 1) ** power
