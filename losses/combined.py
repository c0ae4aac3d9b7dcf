"""Two terms in one loss: their mixture, each term on its own, and a share that a schedule may move."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from rarevox.losses.loss import Loss
from rarevox.losses.options import check_fraction


class CombinedLoss(Loss):
    """2 (α · first + (1 − α) · second): with the default α = 1/2 the plain sum of the two terms.

    ``alpha`` is an ordinary attribute, checked when set, so a schedule moves it between steps (1 leaves the first
    term alone, 0 the second); it is part of ``state_dict``. The factor 2 keeps α = 1/2 equal to the sum that nnU-Net
    and MONAI use.

    A subclass states its two terms in ``terms``; one whose terms are both arithmetic on the same table of sums is a
    :class:`rarevox.losses.CombinedTableLoss`.
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
    def terms(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Each term as a scalar of its own by name, unweighted, in the order (first, second).

        The terms may share one graph: backward through the first then needs ``retain_graph=True``. ``mix`` of the
        result is the loss.
        """

    def mix(self, terms: dict[str, Tensor]) -> Tensor:
        """2 (α · first + (1 − α) · second)."""
        first, second = terms.values()
        return 2 * (self.alpha * first + (1 - self.alpha) * second)

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in the class's description."""
        return self.mix(self.terms(logits, labels, weight))

    def get_extra_state(self) -> dict[str, float]:
        """What ``state_dict`` keeps."""
        return {"alpha": self.alpha}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Restore what ``state_dict`` kept."""
        self.alpha = state["alpha"]

    def extra_repr(self) -> str:
        """The options, for ``print(loss)``."""
        return f"alpha={self.alpha!r}, " + super().extra_repr()
