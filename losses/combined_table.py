"""Two-term losses whose terms are both arithmetic on one table of sums, so that one pass over the volume gives both."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from rarevox.losses.arithmetic import scalar
from rarevox.losses.combined import CombinedLoss
from rarevox.losses.sums import Columns, SumTable
from rarevox.losses.table_loss import table_for


class CombinedTableLoss(CombinedLoss):
    """A :class:`rarevox.losses.CombinedLoss` on one table; a new one states its columns and its ``term_costs``.

    Options, shapes and errors as :class:`rarevox.losses.Loss` states them; ``alpha`` as of the class above.
    """

    columns = Columns(squares=False, entropy=True)

    @abstractmethod
    def term_costs(self, table: SumTable) -> dict[str, Tensor]:
        """The two terms of each row, by name, unweighted, (first, second): (…, classes) sums give (…) values."""

    def table(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> SumTable:
        """The sums that both terms are made of: one row a sample, or one row in all with ``batch``."""
        return table_for(self, self.columns, logits, labels, weight)

    def cost(self, table: SumTable) -> Tensor:
        """The mixture for each row."""
        return self.mix(self.term_costs(table))

    def terms(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Each term as a scalar of its own, unweighted, from one pass over the volume.

        The terms share one graph: backward through the first needs ``retain_graph=True``. ``mix`` of the result is
        the loss.
        """
        costs = self.term_costs(self.table(logits, labels, weight))
        return {name: scalar(cost, logits) for name, cost in costs.items()}

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in the class's description."""
        # Mixed in the precision of the table and rounded once, rather than as the mixture of rounded terms.
        return scalar(self.cost(self.table(logits, labels, weight)), logits)
