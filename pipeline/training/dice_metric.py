"""Hard Dice of whole volumes as an ignite metric, for validation while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.metrics import Metric
from monai.utils.enums import CommonKeys as Keys

from rarevox.losses.hard import confusion
from rarevox.transforms.nested import depths


class HardDice(Metric):  # type: ignore[misc]
    """Mean over structures of the mean over cases of the hard Dice, background left out.

    Dice = 2·TP / (2·TP + FP + FN); 1 where reference and prediction are both empty, 0 where only one is. Scores are
    kept for each case and structure in ``rows``, so the mean of each structure can be told as well.

    Args:
        structures: names of the classes from 1 on.
        ignore_index: voxels whose reference is this class count for nothing.
        regions: names of nested regions, the outermost first: classes are depths in them, scores their logits, and the
            Dice is theirs. None: the structures exclude one another.
    """

    def __init__(
        self,
        structures: list[str],
        ignore_index: int | None = None,
        regions: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> None:
        self.nested = bool(regions)
        self.structures = list(regions or structures)
        self.ignore_index = ignore_index
        self.rows: list[list[float]] = []
        super().__init__(output_transform=lambda output: (output[Keys.PRED], output[Keys.LABEL]))

    def reset(self) -> None:
        """Forget all cases."""
        self.rows = []

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Take (prediction, labels) of a batch: class indices (B, 1, …), the prediction also scores (B, C, …)."""
        predicted, labels = (_plain(tensor).cpu() for tensor in output)
        predicted = classes_of(predicted, nested=self.nested)
        classes = len(self.structures) + 1
        counts = confusion(predicted, labels, num_classes=classes, ignore_index=self.ignore_index)
        if self.nested:  # voxels of reference i or more that are predicted as j or more
            counts = counts.flip(1, 2).cumsum(1).cumsum(2).flip(1, 2)
            true, found, wanted = counts.diagonal(dim1=1, dim2=2), counts[:, 0], counts[:, :, 0]
        else:
            true, found, wanted = counts.diagonal(dim1=1, dim2=2), counts.sum(1), counts.sum(2)
        true, found, wanted = (count[:, 1:].double() for count in (true, found, wanted))
        total = found + wanted
        self.rows.extend(torch.where(total > 0, 2 * true / total.clamp(min=1), 1.0).tolist())

    def per_structure(self) -> dict[str, float]:
        """Mean Dice of each structure over the cases seen."""
        means = torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(self.structures)).mean(0)
        return dict(zip(self.structures, means.tolist(), strict=True))

    def compute(self) -> float:
        """The mean over structures."""
        return float(torch.tensor(self.rows, dtype=torch.float64).mean()) if self.rows else 0.0


def classes_of(predicted: torch.Tensor, *, nested: bool = False) -> torch.Tensor:
    """Class indices (B, 1, …) of what an inferer gives: these, or scores (B, C, …), which are logits where the classes
    are depths in nested regions.

    >>> classes_of(torch.tensor([[[0.2, 0.9], [0.8, 0.1]]])).tolist()
    [[[1, 0]]]
    """
    if not predicted.is_floating_point():
        return predicted
    return depths(predicted) if nested else predicted.argmax(1, keepdim=True)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
