"""Weighted cross-entropy (WCE), with the GDL paper's weight from the prediction or with fixed class weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rarevox.losses.arithmetic import ratio
from rarevox.losses.cross_entropy import check_class_weights, weighted_cross_entropy
from rarevox.losses.sums import Columns, SumTable
from rarevox.losses.table_loss import TableLoss

SMALLEST_PREDICTION_VOXELS = 1e-4


class WeightedCrossEntropyLoss(TableLoss):
    """WCE = −(1/N) Σ_n w r_n log p_n + (1 − r_n) log (1 − p_n), with w = (N − Σ p) / Σ p.

    The weight follows the prediction, and no gradient flows through it. With more classes: −(1/N) Σ_l w_l Σ_n r_ln
    log p_ln with w_l from the class's own Σ p, and w_0 = 1 for the background; two classes give the formula above.

    With ``class_weights`` k the weights are fixed: −Σ_n k_{y_n} log p_{n, y_n} / Σ_n k_{y_n}, as in PyTorch.

    Empty rule: none is needed. A class without reference is pushed away wherever it is predicted, because the voxels
    there have another label. A class that is predicted nowhere (Σ p below 1e-4 voxels) is weighted as if Σ p were
    1e-4, so that neither the loss nor the float16 gradient overflows.

    Args:
        class_weights: one number ≥ 0 a class, or None for the paper's weight.
        batch, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Raises:
        ValueError: class weights that are negative, not finite or all zero, or whose number is not that of classes.

    Source: Ronneberger et al. 2015 in the form of Sudre et al. 2017.

    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2 everywhere: w = (4 − 2) / 2 = 1, so WCE = log 2
    >>> round(WeightedCrossEntropyLoss()(logits, torch.tensor([[[[0, 0], [0, 1]]]])).item(), 6)
    0.693147
    """

    columns = Columns(squares=False, entropy=True)

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, sigmoid=sigmoid, ignore_index=ignore_index)
        self.class_weights = check_class_weights(class_weights)

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table."""
        if self.class_weights is not None:
            return weighted_cross_entropy(table, self.class_weights)
        predicted = table.probability.detach().clamp(min=SMALLEST_PREDICTION_VOXELS)
        weights = ((table.voxels - predicted) / predicted).clamp(min=0)
        weights = torch.cat((torch.ones_like(weights[..., :1]), weights[..., 1:]), -1)
        return ratio((weights * table.cross_entropy).sum(-1), table.voxels[..., 0])
