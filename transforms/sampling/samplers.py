"""Where training patches are taken: one family of samplers, apart from the cropping.

A sampler indexes a case once (``index``, whose cost grows with the volume) and then draws patch starts from the index
alone (``draw``, whose cost does not). Everywhere, "in the effective region" means in the part of the patch that the
loss sees; see :class:`rarevox.transforms.sampling.patch_frame.PatchFrame` for where a patch may lie.

A case without foreground gives patches placed uniformly, whatever the sampler. The distributions are stated with each
class and proven by enumeration in ``tests/transforms/sampling/test_samplers.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rarevox.transforms.sampling.foreground_index import ForegroundIndex, component_rule
from rarevox.transforms.sampling.patch_frame import PatchFrame
from rarevox.transforms.sampling.valid_starts import start_rule, valid_starts

VOLUME = "volume"
"""The rule of an index that holds the size of the volume alone; every index can take its place."""


class PatchSampler(ABC):
    """What the cropping transform asks of a sampler. Samplers hold options only; they are immutable and picklable."""

    needs_frame = False
    """Whether the index depends on the size of the patch."""

    def rule(self, frame: PatchFrame | None) -> str:
        """Says what an index was made for; an index of another rule is refused."""
        return VOLUME

    wants_content = False
    """Whether the index depends on where the scan shows something."""

    def index(self, labels: np.ndarray, frame: PatchFrame | None) -> Any:
        """Everything that the draws from one case need, out of its map of class indices (*spatial)."""
        return ForegroundIndex(tuple(labels.shape), (), (), VOLUME)

    def index_within(self, labels: np.ndarray, frame: PatchFrame | None, content: np.ndarray | None) -> Any:
        """The same, told where (*spatial) the scan shows something."""
        return self.index(labels, frame)

    @abstractmethod
    def draw(self, index: Any, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """The first voxel of one patch; it may lie before the volume, where the patch is padded."""

    def draw_numbered(
        self, index: Any, frame: PatchFrame, random: np.random.RandomState, number: int
    ) -> tuple[int, ...]:
        """The patch of draw ``number`` of a run, for samplers that take turns."""
        return self.draw(index, frame, random)


@dataclass(frozen=True)
class ClassBalancedSampler(PatchSampler):
    """A class uniform over those present in the case, a voxel of it uniform, then a patch that holds the voxel uniform.

    A class of 50 voxels is drawn as often as one of 50 000, and a voxel at the border of the volume as often as an
    inner one. P(s) = mean over classes c of mean over voxels v of c of [s holds v] / (number of patches that hold v).

    Example:
        >>> labels = np.array([0, 0, 0, 1])
        >>> sampler, frame = ClassBalancedSampler(), PatchFrame.of((2,))
        >>> sampler.draw(sampler.index(labels, frame), frame, np.random.RandomState(0))
        (2,)
    """

    def rule(self, frame: PatchFrame | None) -> str:
        """Classes."""
        return "class"

    def index(self, labels: np.ndarray, frame: PatchFrame | None) -> ForegroundIndex:
        """The voxels of each class: 4 bytes a foreground voxel."""
        return ForegroundIndex.of(labels)

    def draw(self, index: ForegroundIndex, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """Draw a start."""
        return _around_some_voxel(index, frame, random)


@dataclass(frozen=True)
class LesionBalancedSampler(PatchSampler):
    """A connected component uniform over those of the case, a voxel of it uniform, then a patch that holds it uniform.

    A lesion of 3 voxels is drawn as often as one of 3000. Components are taken class by class.

    Args:
        connectivity: 1 joins voxels that share a face; None also those that share an edge or a corner.
    """

    connectivity: int | None = None

    def rule(self, frame: PatchFrame | None) -> str:
        """Components."""
        return component_rule(self.connectivity)

    def index(self, labels: np.ndarray, frame: PatchFrame | None) -> ForegroundIndex:
        """The voxels of each component: 4 bytes a foreground voxel."""
        return ForegroundIndex.of_components(labels, self.connectivity)

    def draw(self, index: ForegroundIndex, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """Draw a start."""
        return _around_some_voxel(index, frame, random)


@dataclass(frozen=True)
class ForegroundUniformSampler(PatchSampler):
    """Uniform over exactly the patches with ``min_foreground`` or more foreground voxels in the effective region.

    This is "every training patch holds foreground" of the GDL paper without any further preference: each such patch
    has the same probability, none else has any. Nothing is rejected; the index lists the patches.

    Args:
        min_foreground: voxels, over all classes. Where no patch of a case holds so many (its structures are smaller),
            the draw is uniform over the patches that hold the most.
        overhang: False takes the patches whose effective region lies in the volume, among which a voxel in a corner is
            held by one patch and an inner one by many. True lets the region reach beyond the volume (padded), so that
            every voxel is held by the same number of patches.

    Raises:
        ValueError: ``min_foreground`` is not a whole number of 1 or more.
    """

    min_foreground: int = 1
    overhang: bool = False
    needs_frame = True

    def __post_init__(self) -> None:
        if not isinstance(self.min_foreground, int) or self.min_foreground < 1:
            raise ValueError(f"min_foreground is {self.min_foreground!r}; expected a whole number of voxels, 1 or more")

    def rule(self, frame: PatchFrame | None) -> str:
        """Patches of this frame."""
        return start_rule(_given(frame), self.min_foreground, self.overhang)

    def index(self, labels: np.ndarray, frame: PatchFrame | None) -> Any:
        """The starts of all such patches, as runs; `valid_starts` tells the memory."""
        return valid_starts(labels, _given(frame), self.min_foreground, overhang=self.overhang)

    def draw(self, index: Any, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """Draw a start."""
        if len(index) == 0:
            return _anywhere(index.shape, frame, random, self.overhang)
        return index[int(random.randint(len(index), dtype=np.int64))]


@dataclass(frozen=True)
class UniformSampler(PatchSampler):
    """Uniform over all patches in the volume, with or without foreground.

    Args:
        overhang: as in :class:`ForegroundUniformSampler`.
    """

    overhang: bool = False

    def draw(self, index: Any, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """Draw a start."""
        return _anywhere(index.shape, frame, random, self.overhang)


@dataclass(frozen=True)
class GridSampler(PatchSampler):
    """Uniform over a grid of patches whose effective regions cover the volume, each voxel at least once.

    On an axis of n voxels, with e effective ones and a step of at most e·(1 − overlap), the regions begin at
    ⌊i·(n − e)/(k − 1)⌋, i = 0 … k − 1, k = ⌈(n − e)/step⌉ + 1: evenly spread, flush with both ends. Where e ≥ n there
    is one, centred.

    Args:
        overlap: the share of a region that its neighbour holds as well, at least; 0 ≤ overlap < 1.

    Raises:
        ValueError: ``overlap`` is out of range.

    Example:
        >>> GridSampler().starts((10,), PatchFrame.of((4,)))
        [[0, 3, 6]]
    """

    overlap: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap is {self.overlap}; expected 0 or more and less than 1")

    def starts(self, shape: Sequence[int], frame: PatchFrame) -> list[list[int]]:
        """The starts of the grid's patches, an axis each; the grid is their product."""
        return [[first(i) for i in range(count)] for first, count in self._axes(shape, frame)]

    def _axes(self, shape: Sequence[int], frame: PatchFrame) -> Iterator[tuple[Callable[[int], int], int]]:
        """For each axis the start as a function of i, and how many there are."""
        for n, e, m in zip(shape, frame.effective, frame.margin, strict=True):
            room = n - e
            steps = -(-room // max(int(e * (1 - self.overlap)), 1)) if room > 0 else 0
            yield partial(_grid_start, room=room, steps=steps, margin=m), steps + 1

    def draw(self, index: Any, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """Draw a start."""
        return tuple(first(int(random.randint(count))) for first, count in self._axes(index.shape, frame))


def _grid_start(i: int, *, room: int, steps: int, margin: int) -> int:
    return (i * room // steps if steps else room // 2) - margin


def _given(frame: PatchFrame | None) -> PatchFrame:
    if frame is None:
        raise ValueError("this sampler indexes patches of one size: give the index patch_size and margin")
    return frame


def _anywhere(
    shape: Sequence[int], frame: PatchFrame, random: np.random.RandomState, overhang: bool = False
) -> tuple[int, ...]:
    """A start, uniform over all patches in the volume."""
    return tuple(int(random.randint(low, high + 1)) for low, high in frame.limits(shape, overhang=overhang))


def _around_some_voxel(index: ForegroundIndex, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
    """A group of the index, a voxel of it and a patch that holds the voxel, each uniform."""
    if not index.voxels:
        return _anywhere(index.shape, frame, random)
    voxels = index.voxels[random.randint(len(index.voxels))]
    voxel = np.unravel_index(int(voxels[random.randint(voxels.size)]), index.shape)
    ranges = frame.around([int(v) for v in voxel], index.shape)
    return tuple(int(random.randint(low, high + 1)) for low, high in ranges)
