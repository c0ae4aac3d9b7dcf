"""What every loss shares: how it is called, its options, and how they are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """``loss(logits, labels, weight=None)``, a scalar that is differentiable once with respect to the logits.

    :class:`rarevox.losses.TableLoss` is arithmetic on one table of sums, :class:`rarevox.losses.CombinedLoss` has two
    terms; a new loss derives from one of these.

    Args:
        batch: take the sums over the whole batch (and, under DistributedDataParallel, over all processes) before the
            formula is applied; otherwise apply it to each sample and average.
        include_background: let class 0 take part in the overlap.
        sigmoid: each logit is a two-class problem [rest, structure]: one binary logit, or labels that may overlap
            (nested regions among them).
        ignore_index: voxels with this label count for nothing.

    Shapes:
        logits (B, C, *spatial) in any floating type, labels (B, 1, *spatial) of whole numbers, weight (B, 1,
        *spatial) or None. With ``sigmoid`` and C > 1 labels (B, C, *spatial) of zeros and ones, or, where the C
        structures lie one in another, depths (B, 1, *spatial) from 0 to C: the label of logit k is depth ≥ k. The loss
        is the mean over the labels. The result is a scalar, float64 for float64 logits and float32 for all others.

    Raises:
        ValueError: from ``forward``, as :func:`rarevox.losses.overlap_sums` states.
        NonFiniteLogitsError: from ``forward``, when the logits hold NaN or an infinity.
    """

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

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in the class's description."""

    def extra_repr(self) -> str:
        """The options, for ``print(loss)``."""
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())
