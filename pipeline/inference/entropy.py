"""How undecided the network was, voxel by voxel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.data.volumes import write_shares
from rarevox.transforms.reader import Scan

if TYPE_CHECKING:
    import torch


class EntropyMap:
    """Gather the normalised entropy of a scan's class probabilities, a byte a voxel; a
    :class:`rarevox.pipeline.inference.watch.Watch`.

    H = −Σ_c p_c ln p_c / ln C: 0 where one class is certain, 1 where all are equally likely. Voxels that the network
    never saw are 0.

    Attributes:
        values: uint8 (X, Y, Z), round(255 · H).

    >>> import torch
    >>> entropy = EntropyMap()
    >>> entropy.begin((1, 1, 2))
    >>> logs = torch.tensor([[0.5, 1.0], [0.5, 0.0]]).reshape(2, 1, 1, 2).log()
    >>> entropy.take(logs, (slice(0, 1), slice(0, 1), slice(0, 2)))
    >>> entropy.values.tolist()
    [[[255, 0]]]
    """

    def __init__(self) -> None:
        self.values = np.zeros((0, 0, 0), np.uint8)

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins."""
        self.values = np.zeros(shape, np.uint8)

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Add a block."""
        shares = log_probabilities.exp()
        share = -shares.xlogy(shares).sum(0) / math.log(len(log_probabilities))
        self.values[where] = (255 * share).round_().clamp_(0, 255).byte().cpu().numpy()

    def save(self, folder: Path, case: str, grid: Scan) -> dict[str, Any]:
        """Write ``CASE_entropy.nii.gz``; the entry of the result row."""
        return {"entropy": write_shares(folder / f"{case}_entropy.nii.gz", self.values, grid).name}
