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


class _BatchChange(BatchTransform):
    """One number for each patch, or one for each of its channels.

    Args:
        keys: the images (B, C, *spatial).
        limits: of the numbers; one number a means −a to a.
        prob: of each patch.
        channel_wise: a number for each channel.
    """

    def __init__(
        self, keys: str | Sequence[str], limits: float | Sequence[float], prob: float, *, channel_wise: bool
    ) -> None:
        super().__init__(keys, prob)
        self.low, self.high = _limits(limits)
        self.channel_wise = channel_wise

    def columns(self, batch: Batch, generators: Generators, none: float) -> list[torch.Tensor]:
        """For each key (B, C or 1, 1 …) numbers, and ``none`` where a patch is not to be changed."""
        rows = set(self.chosen(generators))
        found = []
        for key in self.keys:
            volumes = batch[key]
            count = volumes.shape[1] if self.channel_wise else 1
            drawn = [generator.uniform(self.low, self.high, count) + none for generator in generators]
            values = np.stack([value if row in rows else np.full(count, none) for row, value in enumerate(drawn)])
            column = sent(torch.from_numpy(values).to(volumes.dtype), volumes.device)
            found.append(column.view(len(generators), count, *(1,) * (volumes.ndim - 2)))
        return found


class BatchScaleIntensity(_BatchChange):
    """x · (1 + f), f uniform in ``factors`` (a number a means −a to a), one for each patch or each of its channels."""

    def __init__(
        self,
        keys: str | Sequence[str],
        factors: float | Sequence[float],
        prob: float = 0.5,
        *,
        channel_wise: bool = False,
    ) -> None:
        super().__init__(keys, factors, prob, channel_wise=channel_wise)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Scale."""
        for key, column in zip(self.keys, self.columns(batch, generators, 1.0), strict=True):
            batch[key].mul_(column)
        return batch


class BatchShiftIntensity(_BatchChange):
    """x + o, o uniform in ``offsets`` (a number a means −a to a), one for each patch or each of its channels."""

    def __init__(
        self,
        keys: str | Sequence[str],
        offsets: float | Sequence[float],
        prob: float = 0.5,
        *,
        channel_wise: bool = False,
    ) -> None:
        super().__init__(keys, offsets, prob, channel_wise=channel_wise)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Shift."""
        for key, column in zip(self.keys, self.columns(batch, generators, 0.0), strict=True):
            batch[key].add_(column)
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
