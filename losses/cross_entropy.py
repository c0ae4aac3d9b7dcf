"""Cross-entropy over the voxels, with class weights and label smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rarevox.losses.arithmetic import ratio
from rarevox.losses.options import check_fraction
from rarevox.losses.sums import Columns, SumTable
from rarevox.losses.table_loss import TableLoss


class CrossEntropyLoss(TableLoss):
    """CE = −Σ_n w_n log p_{n, y_n} / Σ_n w_n (nats).

    With smoothing ε: (1 − ε) CE − (ε/C) Σ_n w_n Σ_c log p_nc / Σ_n w_n.

    With class weights k: −Σ_n w_n k_{y_n} log p_{n, y_n} / Σ_n w_n k_{y_n}, as in ``torch.nn.CrossEntropyLoss``, so
    that the scale of k does not act as a learning rate.

    Empty rule: none is needed. A class without reference is pushed away wherever it is predicted, because the voxels
    there have another label. Where every voxel is ignored the loss is 0.

    Args:
        class_weights: one number ≥ 0 a class, or None.
        label_smoothing: ε, from 0 to 1.
        batch: average over all voxels of the batch (the default, as everywhere); otherwise over each sample first.
        sigmoid, ignore_index: see :class:`rarevox.losses.Loss`.

    Raises:
        ValueError: smoothing outside 0 to 1; class weights that are negative, not finite or all zero, or whose number
            is not that of the classes.

    >>> logits = torch.zeros(1, 4, 2, 2)  # four classes, each with p = 1/4
    >>> round(CrossEntropyLoss()(logits, torch.zeros(1, 1, 2, 2)).item(), 4)  # log 4
    1.3863
    """

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        batch: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(batch=batch, sigmoid=sigmoid, ignore_index=ignore_index)
        self.class_weights = check_class_weights(class_weights)
        self.label_smoothing = check_fraction("label_smoothing", label_smoothing)
        if self.class_weights is not None and self.label_smoothing > 0:
            raise ValueError("class_weights and label_smoothing cannot be combined; leave one of them out")
        self.columns = Columns(squares=False, entropy=True, uniform=self.label_smoothing > 0)

    def cost(self, table: SumTable) -> Tensor:
        """One loss for each row of the table."""
        if self.class_weights is not None:
            return weighted_cross_entropy(table, self.class_weights)
        plain = mean_cross_entropy(table)
        if self.label_smoothing == 0:
            return plain
        uniform = ratio(table.uniform_cross_entropy.mean(-1), table.voxels[..., 0])
        return (1 - self.label_smoothing) * plain + self.label_smoothing * uniform


def mean_cross_entropy(table: SumTable) -> Tensor:
    """Cross-entropy a voxel of each row, (…, classes) → (…)."""
    return ratio(table.cross_entropy.sum(-1), table.voxels[..., 0])


def weighted_cross_entropy(table: SumTable, class_weights: Sequence[float]) -> Tensor:
    """Cross-entropy with fixed class weights, divided by the weight of the voxels, (…, classes) → (…)."""
    classes = table.reference.shape[-1]
    if len(class_weights) != classes:
        raise ValueError(f"class_weights has {len(class_weights)} numbers; expected {classes}, one for each class")
    # Filled there, number by number: a copy from the host would make it wait for the device.
    weights = torch.stack([torch.full_like(table.reference[..., 0], weight) for weight in class_weights], -1)
    return ratio((weights * table.cross_entropy).sum(-1), (weights * table.reference).sum(-1))


def check_class_weights(class_weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """The weights as a tuple, or None.

    Raises:
        ValueError: a weight is negative or not finite, or all are zero.
    """
    if class_weights is None:
        return None
    weights = tuple(float(value) for value in class_weights)
    if not all(math.isfinite(value) and value >= 0 for value in weights) or not any(weights):
        raise ValueError(f"class_weights={weights} must be finite, none negative and at least one above 0")
    return weights
