"""The arithmetic that formulas share: the mean of the rows, fractions that may be 0/0, and the empty rule."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.sums import SumTable


def scalar(costs: Tensor, logits: Tensor) -> Tensor:
    """The mean of the rows' costs, float64 for float64 logits and float32 for all others."""
    return costs.mean().to(torch.float64 if logits.dtype == torch.float64 else torch.float32)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 (with no gradient) where the whole is 0.

    >>> ratio(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0])).tolist()
    [0.25, 0.0]
    """
    there = whole > 0
    # Both operands are replaced before the division: autograd multiplies the gradient of the branch that is not taken
    # by 0, and 0 · (0/0) would be NaN.
    return torch.where(there, part, torch.zeros_like(part)) / torch.where(there, whole, torch.ones_like(whole))


def overlap_or_claim(absent: Tensor, cost: Tensor, table: SumTable, claimed: Tensor | None = None) -> Tensor:
    """The empty rule of the overlap losses: ``cost`` where the class has a reference, else the share of the volume
    that is claimed for it, Σwp / Σw. Nothing claimed costs nothing; what is claimed has the gradient w / Σw a voxel,
    which removes it. (The fraction itself would be 1 whatever is claimed, with no gradient at all.)
    """
    claimed = table.probability if claimed is None else claimed
    return torch.where(absent, ratio(claimed, table.voxels), cost)
