"""Two terms in one loss: their mixture, each term on its own, and a share that a schedule may move."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from rarevox.losses.sums.checks import check_fraction
from rarevox.losses.sums.table import SumTable
from rarevox.losses.table_loss import TableLoss, scalar


class CombinedLoss(TableLoss):
    """2 (α · first + (1 − α) · second): with the default α = 1/2 the plain sum of the two terms.

    ``alpha`` is an ordinary attribute, checked when set, so a schedule moves it between steps (1 leaves the first
    term alone, 0 the second); it is part of ``state_dict``. The factor 2 keeps α = 1/2 equal to the sum that nnU-Net
    and MONAI use.

    A term is a method that turns a table into one cost for each row; a subclass names its two in ``term_costs``.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, sigmoid=sigmoid, ignore_index=ignore_index)
        self.alpha = alpha

    @property
    def alpha(self) -> float:
        """The share of the first term, from 0 to 1."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = check_fraction("alpha", value)

    @abstractmethod
    def term_costs(self, table: SumTable) -> dict[str, Tensor]:
        """The two terms of each row, by name, unweighted and in the order (first, second)."""

    def cost(self, table: SumTable) -> Tensor:
        """The mixture for each row."""
        return self.mix(self.term_costs(table))

    def terms(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Each term as a scalar of its own, unweighted, from one pass over the volume.

        The terms share one graph: backward through the first needs ``retain_graph=True``. ``mix`` of the result is
        the loss.
        """
        return {
            name: scalar(cost, logits) for name, cost in self.term_costs(self.table(logits, labels, weight)).items()
        }

    def mix(self, terms: dict[str, Tensor]) -> Tensor:
        """2 (α · first + (1 − α) · second)."""
        first, second = terms.values()
        return 2 * (self.alpha * first + (1 - self.alpha) * second)

    def get_extra_state(self) -> dict[str, float]:
        """What ``state_dict`` keeps."""
        return {"alpha": self.alpha}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` kept."""
        self.alpha = state["alpha"]

    def extra_repr(self) -> str:
        """The options, for ``print(loss)``."""
        return f"alpha={self.alpha!r}, " + super().extra_repr()
