"""The table of sums itself: its columns, and which of them a loss asks for.

Shapes are written with these letters in all of `losses`:

    B           samples of the batch
    C           channels of the logits: the classes, or the labels that may overlap (``sigmoid``)
    *spatial    one to three spatial axes; D, H, W are depth, height and width
    N           voxels of a sample, the product of its spatial axes
    problem     what has one softmax a voxel: a sample, or with ``sigmoid`` each channel of a sample
    K           classes of a problem: C, or 2 with ``sigmoid``
    L           labels that may overlap
    F           foreground classes, K − 1
    R           regions of connected components

p, r and w are probability, reference and weight of a voxel, z a logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class SumTable(NamedTuple):
    """Sums over the voxels, one for each sample and class: (B, C), or (B, L, 2) for L labels that may overlap.

    p is the probability of the class, r its reference (1 where the label names it, else 0), w the voxel weight (1
    where none is given, 0 under the ignore label). Float64, except on devices that have none (float32).

    Attributes:
        voxels: Σ w, the same for every class.
        probability: Σ w p.
        reference: Σ w r.
        intersection: Σ w p r.
        probability_squared: Σ w p².
        intersection_squared: Σ w p² r.
        cross_entropy: −Σ w r log p (nats); with an ``entropy_weight`` in place of w where one is given.
        uniform_cross_entropy: −Σ w log p, for label smoothing.
        focal: −Σ w r (1 − p)^γ log p.

    A column that was not asked for holds zeros.
    """

    voxels: Tensor
    probability: Tensor
    reference: Tensor
    intersection: Tensor
    probability_squared: Tensor
    intersection_squared: Tensor
    cross_entropy: Tensor
    uniform_cross_entropy: Tensor
    focal: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> SumTable:
        """The table with ``change`` applied to every column."""
        return SumTable(*(change(column) for column in self))

    def pooled(self) -> SumTable:
        """The sums of the whole batch, as a batch of one: sums add up."""
        return self.map(lambda column: column.sum(0, keepdim=True))

    def foreground(self) -> SumTable:
        """The table without class 0."""
        return self.map(lambda column: column[..., 1:])


# The places of the columns where they are stacked in one tensor.
VOXELS, P, R, PR, PP, PPR, CE, UNIFORM, FOCAL = range(len(SumTable._fields))
# Kernels make the columns before these two, which PyTorch's operations alone do.
KERNEL_COLUMNS = UNIFORM


class Columns(NamedTuple):
    """Which of the optional columns a loss needs; each costs a pass over the piece, forward and backward."""

    squares: bool = True
    entropy: bool = True
    uniform: bool = False
    focal_gamma: float | None = None
