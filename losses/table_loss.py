"""What every loss on the table of sums shares: its options, the table itself and the empty rule's building blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rarevox.losses.distributed import pool_processes
from rarevox.losses.sums.overlap import overlap_sums
from rarevox.losses.sums.table import Columns, SumTable


class TableLoss(nn.Module, ABC):
    """A loss that is arithmetic on the table of sums; a new one states its columns and its cost.

    Args:
        batch: take the sums over the whole batch (and, under DistributedDataParallel, over all processes) before the
            formula is applied; otherwise apply it to each sample and average.
        include_background: let class 0 take part in the overlap.
        sigmoid: each logit is a two-class problem [rest, structure]: one binary logit, or labels that may overlap.
        ignore_index: voxels with this label count for nothing.

    Shapes:
        logits (B, C, *spatial) in any floating type, labels (B, 1, *spatial) of whole numbers, weight (B, 1,
        *spatial) or None. With ``sigmoid`` and C > 1 labels (B, C, *spatial) of zeros and ones; the loss is the mean
        over the labels. The result is a scalar, float64 for float64 logits and float32 for all others.

    Raises:
        ValueError: from ``forward``, as :func:`rarevox.losses.sums.overlap.overlap_sums` states.
        NonFiniteLogitsError: from ``forward``, when the logits hold NaN or an infinity.
    """

    columns = Columns(squares=False, entropy=False)
    # Whether the labels must carry component regions in further channels, as `rarevox.transforms.ComponentRegionsd`
    # appends.
    needs_regions = False

    def __init__(
        self,
        *,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.batch = batch
        self.include_background = include_background
        self.sigmoid = sigmoid
        self.ignore_index = ignore_index

    def table(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> SumTable:
        """The sums that the formula is applied to: one row a sample, or one row in all with ``batch``."""
        sums = overlap_sums(
            logits,
            labels,
            weight,
            sigmoid=self.sigmoid,
            ignore_index=self.ignore_index,
            columns=self.columns,
        )
        return pool_processes(sums.pooled()) if self.batch else sums

    @abstractmethod
    def cost(self, table: SumTable) -> Tensor:
        """The loss of each row of the table: (…, classes) sums give (…) values. Hard sums give the hard loss."""

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in the class's description."""
        return scalar(self.cost(self.table(logits, labels, weight)), logits)

    def extra_repr(self) -> str:
        """The options, for ``print(loss)``."""
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def scalar(costs: Tensor, logits: Tensor) -> Tensor:
    """The mean of the rows' costs, float64 for float64 logits and float32 for all others."""
    return costs.mean().to(torch.float64 if logits.dtype == torch.float64 else torch.float32)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 (with no gradient) where the whole is 0.

    >>> ratio(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0])).tolist()
    [0.25, 0.0]
    """
    there = whole > 0
    return torch.where(there, part, torch.zeros_like(part)) / torch.where(there, whole, torch.ones_like(whole))


def overlap_or_claim(absent: Tensor, cost: Tensor, table: SumTable, claimed: Tensor | None = None) -> Tensor:
    """The empty rule of the overlap losses: ``cost`` where the class has a reference, else the share of the volume
    that is claimed for it, Σwp / Σw. Nothing claimed costs nothing; what is claimed has the gradient w / Σw a voxel,
    which removes it. (The fraction itself would be 1 whatever is claimed, with no gradient at all.)
    """
    claimed = table.probability if claimed is None else claimed
    return torch.where(absent, ratio(claimed, table.voxels), cost)
