"""Random transforms of whole batches, where the batch lies: on the CPU, or on a device that holds the cases.

Each patch has its own generator of random numbers, which draws the same numbers whatever the others draw: a patch comes
out the same in every batch. The parameters are drawn on the CPU; only noise is drawn where the batch lies. Formulas
and options are those of MONAI's transforms of single patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

Batch = dict[str, torch.Tensor]
Generators = list[np.random.Generator]


class BatchTransform(ABC):
    """A random transform of volumes (B, C, *spatial) in a dictionary; it may overwrite them.

    Args:
        keys: the volumes.
        prob: of each patch to be changed.

    Raises:
        ValueError: ``prob`` is not a probability.
    """

    def __init__(self, keys: str | Sequence[str], prob: float) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob is {prob}; expected 0 to 1")
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.prob = prob

    def chosen(self, generators: Generators) -> list[int]:
        """The patches to be changed; one number is drawn for each."""
        return [row for row, generator in enumerate(generators) if generator.random() < self.prob]

    @abstractmethod
    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """The changed batch; ``generators`` has one for each patch."""


class BatchCompose:
    """Batch transforms one after the other.

    >>> double = BatchScaleIntensity("image", factors=[1, 1], prob=1)
    >>> BatchCompose([double, double])({"image": torch.ones(1, 1, 2)}, [np.random.default_rng(0)])["image"].tolist()
    [[[4.0, 4.0]]]
    """

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Apply them in order."""
        for transform in self.transforms:
            batch = transform(batch, generators)
        return batch


class BatchFlip(BatchTransform):
    """Mirror along each of the axes, independently.

    Args:
        keys: the volumes, mirrored alike.
        axes: spatial axes, from 0.
        prob: for each axis.
    """

    def __init__(self, keys: str | Sequence[str], axes: Sequence[int] = (0,), prob: float = 0.5) -> None:
        super().__init__(keys, prob)
        self.axes = tuple(axes)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Mirror."""
        for axis in self.axes:
            rows = self.chosen(generators)
            for key in self.keys if rows else ():
                volumes = batch[key]
                where = sent(torch.tensor(rows), volumes.device)
                volumes[where] = volumes[where].flip(axis + 2)
        return batch


class BatchScaleIntensity(BatchTransform):
    """x · (1 + f), f uniform in ``factors`` (a number a means −a to a), one for each patch."""

    def __init__(self, keys: str | Sequence[str], factors: float | Sequence[float], prob: float = 0.5) -> None:
        super().__init__(keys, prob)
        self.low, self.high = _limits(factors)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Scale."""
        change = [1 + value for value in _values(self, generators)]
        for key in self.keys:
            batch[key].mul_(_column(change, batch[key]))
        return batch


class BatchShiftIntensity(BatchTransform):
    """x + o, o uniform in ``offsets`` (a number a means −a to a), one for each patch."""

    def __init__(self, keys: str | Sequence[str], offsets: float | Sequence[float], prob: float = 0.5) -> None:
        super().__init__(keys, prob)
        self.low, self.high = _limits(offsets)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Shift."""
        change = _values(self, generators)
        for key in self.keys:
            batch[key].add_(_column(change, batch[key]))
        return batch


class BatchGaussianNoise(BatchTransform):
    """x + s·n, n standard normal for each voxel, s uniform in 0 … ``std`` for each patch."""

    def __init__(self, keys: str | Sequence[str], std: float = 0.1, prob: float = 0.1) -> None:
        super().__init__(keys, prob)
        self.std = std

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Add noise."""
        rows = set(self.chosen(generators))
        for row, generator in enumerate(generators):
            std, seed = generator.uniform(0, self.std), int(generator.integers(2**62))
            for key in self.keys if row in rows else ():
                patch = batch[key][row]
                source = torch.Generator(patch.device).manual_seed(seed)
                noise = torch.randn(patch.shape, generator=source, device=patch.device, dtype=patch.dtype)
                patch.add_(noise, alpha=std)
        return batch


def sent(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A few numbers of the host on a device; to CUDA through pinned memory, so that the host does not wait for it."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def _limits(value: float | Sequence[float]) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        return -abs(value), abs(value)
    low, high = (float(v) for v in value)
    return min(low, high), max(low, high)


def _values(transform: BatchScaleIntensity | BatchShiftIntensity, generators: Generators) -> list[float]:
    """For each patch a number in the limits, or 0 where it is not to be changed."""
    rows = set(transform.chosen(generators))
    drawn = [generator.uniform(transform.low, transform.high) for generator in generators]
    return [value if row in rows else 0.0 for row, value in enumerate(drawn)]


def _column(values: list[float], volumes: torch.Tensor) -> torch.Tensor:
    """(B, 1, 1 …), to meet (B, C, *spatial)."""
    column = sent(torch.tensor(values, dtype=volumes.dtype), volumes.device)
    return column.view(-1, *(1,) * (volumes.ndim - 1))
