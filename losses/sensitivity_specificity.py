"""Sensitivity–specificity loss (SS): the squared error inside the structure and outside it, each by its volume."""

from __future__ import annotations

from torch import Tensor

from rarevox.losses.arithmetic import ratio
from rarevox.losses.options import check_fraction
from rarevox.losses.sums import Columns, SumTable
from rarevox.losses.table_loss import TableLoss


class SensitivitySpecificityLoss(TableLoss):
    """SS = λ Σ (r − p)² r / Σ r + (1 − λ) Σ (r − p)² (1 − r) / Σ (1 − r).

    On the table: Σ (r − p)² r = Σ r − 2 Σ p r + Σ p² r and Σ (r − p)² (1 − r) = Σ p² − Σ p² r. With more than two
    classes the formula is applied to each class but the background against all the rest, and averaged.

    Empty rule: without reference there is no sensitivity to lose, the first term is 0, and the second one is the mean
    of p² over the volume, whose gradient removes what is predicted. Likewise the second is 0 where the class fills
    the volume.

    Args:
        sensitivity: λ, the weight of the sensitivity term, from 0 to 1.
        batch, sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Raises:
        ValueError: λ outside 0 to 1.

    Source: Brosch et al., MICCAI 2015; λ = 0.05 as in Sudre et al. 2017.

    >>> import torch
    >>> logits = torch.zeros(1, 2, 2, 2)  # p = 1/2: both terms are 1/4, whatever λ
    >>> SensitivitySpecificityLoss()(logits, torch.tensor([[[[0, 0], [0, 1]]]])).item()
    0.25
    """

    columns = Columns(squares=True, entropy=False)

    def __init__(
        self,
        *,
        sensitivity: float = 0.05,
        batch: bool = False,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, include_background=False, sigmoid=sigmoid, ignore_index=ignore_index)
        self.sensitivity = check_fraction("sensitivity", sensitivity)

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table: the mean over the foreground classes."""
        table = table.foreground()
        missed = table.reference - 2 * table.intersection + table.intersection_squared
        false = table.probability_squared - table.intersection_squared
        inside = ratio(missed, table.reference)
        outside = ratio(false, table.voxels - table.reference)
        return (self.sensitivity * inside + (1 - self.sensitivity) * outside).mean(-1)
