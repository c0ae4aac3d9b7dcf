"""Losses on one table of sums: a formula turns each row of the table into a cost."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from rarevox.losses.arithmetic import scalar
from rarevox.losses.distributed import pool_processes
from rarevox.losses.loss import Loss
from rarevox.losses.sums import Columns, SumTable, overlap_sums


class TableLoss(Loss):
    """A loss that is arithmetic on the table of sums; a new one states its columns and its cost.

    Options, shapes and errors as :class:`rarevox.losses.Loss` states them.
    """

    columns = Columns(squares=False, entropy=False)

    def table(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> SumTable:
        """The sums that the formula is applied to: one row a sample, or one row in all with ``batch``."""
        return table_for(self, self.columns, logits, labels, weight)

    @abstractmethod
    def cost(self, table: SumTable) -> Tensor:
        """The loss of each row of the table: (…, classes) sums give (…) values. Hard sums give the hard loss."""

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in the class's description."""
        return scalar(self.cost(self.table(logits, labels, weight)), logits)


def table_for(
    loss: Loss,
    columns: Columns,
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    entropy_weight: Tensor | None = None,
) -> SumTable:
    """The table of sums as a loss's options want it, with ``batch`` as one row over the batch and all processes.

    Args:
        loss: whose ``batch``, ``sigmoid`` and ``ignore_index`` hold.
        columns, logits, labels, weight, entropy_weight: as of :func:`rarevox.losses.overlap_sums`.
    """
    sums = overlap_sums(
        logits,
        labels,
        weight,
        sigmoid=loss.sigmoid,
        ignore_index=loss.ignore_index,
        entropy_weight=entropy_weight,
        columns=columns,
    )
    return pool_processes(sums.pooled()) if loss.batch else sums
