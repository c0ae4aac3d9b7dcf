"""What makes a table of sums and its gradient: the contract of the three backends, and what kernels can make."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rarevox.compiled import is_eager
from rarevox.losses.sums.checks import Extremes
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.table import Columns, SumTable


class Backend(ABC):
    """Makes the sums of one volume, and afterwards any number of times their gradient.

    Args:
        columns: the optional columns wanted.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    @abstractmethod
    def sums(self, volume: Volume) -> tuple[Tensor, Extremes | Tensor]:
        """The stacked columns of the table, (columns, problems, K) in float64 where the device has it.

        The extremes are a tensor (6,) where they lie on a GPU, so that the caller decides when to wait for it.
        """

    @abstractmethod
    def gradient(self, volume: Volume, grad_sums: Tensor) -> Tensor:
        """The gradient of the logits, shaped and laid out as they are, from that of the sums (columns, problems, K)."""


def known_to_kernels(volume: Volume, columns: Columns, most_classes: int) -> bool:
    """Whether kernels can make the columns of this table, the first `rarevox.losses.sums.table.KERNEL_COLUMNS`.

    Args:
        volume, columns: what is asked for.
        most_classes: kernels work on all classes of a voxel at once, and are tested up to this number of them.
    """
    return (
        not columns.uniform
        and columns.focal_gamma is None
        and volume.classes <= most_classes
        and is_eager(volume.logits, volume.labels, volume.weight)
    )


def with_all_columns(sums: Tensor) -> Tensor:
    """The first columns of a table, (columns, problems, K), with zeros for all that follow."""
    missing = sums.new_zeros((len(SumTable._fields) - sums.shape[0], *sums.shape[1:]))
    return torch.cat((sums, missing))
