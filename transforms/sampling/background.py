"""Patches without foreground: where they lie in a case, and a sampler that draws a share of them beside another's.

A network that sees foreground in every patch learns that there always is some. What it needs beside them are patches of
which nothing is to be marked, in the anatomy and not in the air around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rarevox.transforms.sampling.patch_frame import PatchFrame
from rarevox.transforms.sampling.samplers import ClassBalancedSampler, PatchSampler
from rarevox.transforms.sampling.valid_starts import ValidStarts, runs_of, starts_with_foreground


def background_starts(labels: np.ndarray, content: np.ndarray | None, frame: PatchFrame, rule: str) -> ValidStarts:
    """Every start whose effective region holds no foreground and has its middle voxel in the content.

    The counterpart of :func:`rarevox.transforms.sampling.valid_starts.valid_starts` with one voxel of foreground: each
    start in the volume is in exactly one of the two sets, or in none because its middle is outside the content. The
    middle of an effective region of e voxels from a is a + ⌊e/2⌋. It takes about 3 bytes a start while it runs.

    Args:
        labels: (*spatial), 0 is background.
        content: (*spatial), where patches may have their middle; None is everywhere.
        frame: size and margin of the patch.
        rule: of the set.

    Example:
        >>> found = background_starts(np.array([0, 0, 0, 1, 0]), None, PatchFrame.of((2,)), "")
        >>> [found[i] for i in range(len(found))]
        [(0,), (1,)]
    """
    limits = frame.limits(labels.shape)
    free = np.ones([high - low + 1 for low, high in limits], bool)
    if content is not None:
        middle = []
        for (low, high), margin, width, size in zip(limits, frame.margin, frame.effective, labels.shape, strict=True):
            middle.append(np.clip(np.arange(low, high + 1) + margin + width // 2, 0, size - 1))
        free &= content[np.ix_(*middle)]
    held, origin = starts_with_foreground(labels, frame)
    if held.size:
        inside = tuple(slice(o - low, o - low + n) for o, (low, _), n in zip(origin, limits, held.shape, strict=True))
        free[inside] &= ~held
    return runs_of(free, labels.shape, tuple(low for low, _ in limits), rule)


@dataclass(frozen=True, eq=False)
class MixedIndex:
    """The index of another sampler, and the patches of the case that hold no foreground.

    Attributes:
        shape: the volume's size, voxels.
        inner: the other sampler's index.
        background: the patches without foreground.
        rule: how both were made.
    """

    shape: tuple[int, ...]
    inner: Any
    background: ValidStarts
    rule: str


@dataclass(frozen=True)
class BackgroundMixSampler(PatchSampler):
    """A share of the patches uniform over those without foreground, the others as another sampler draws them.

    A patch without foreground is one whose effective region holds none and whose middle lies in the content
    (:func:`rarevox.transforms.sampling.content.content_of`, or the case's mask). A case without such patches gives
    the other sampler's.

    Draws that are numbered, as those of a training are, take their shares in turn: of any n draws in a row, n · share
    are without foreground, give or take one. With a share of 0.5 every batch of two holds one patch of each kind,
    and a loss over the whole batch weighs the false positives of the one with the true ones of the other. Draws
    without a number are without foreground with probability ``share``.

    With a share of 0 the draws are those of the other sampler, number by number.

    Args:
        sampler: draws the other patches; class-balanced if None.
        share: of the patches, 0 to 1.

    Raises:
        ValueError: ``share`` is no share.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1])
        >>> mix, frame, random = BackgroundMixSampler(share=0.5), PatchFrame.of((2,)), np.random.RandomState(0)
        >>> index = mix.index(labels, frame)
        >>> [mix.draw_numbered(index, frame, random, number)[0] < 3 for number in range(4)]
        [False, True, False, True]
    """

    sampler: PatchSampler | None = None
    share: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, (int, float)) or not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share!r}; expected 0 to 1, the share of patches without foreground")
        if self.sampler is None:
            object.__setattr__(self, "sampler", ClassBalancedSampler())

    @property
    def needs_frame(self) -> bool:  # type: ignore[override]
        """Whether patches without foreground are asked for, or the other sampler needs it."""
        return self.share > 0 or self._inner.needs_frame

    @property
    def wants_content(self) -> bool:  # type: ignore[override]
        """Likewise."""
        return self.share > 0 or self._inner.wants_content

    @property
    def _inner(self) -> PatchSampler:
        assert self.sampler is not None
        return self.sampler

    def rule(self, frame: PatchFrame | None) -> str:
        """The other sampler's, and patches of this frame; the share may change under one index."""
        inner = self._inner.rule(frame)
        if self.share == 0:
            return inner
        if frame is None:
            raise ValueError("patches without foreground are of one size: give the index patch_size and margin")
        return f"{inner}; without foreground, patches {frame.size}, margin {frame.margin}"

    def index(self, labels: np.ndarray, frame: PatchFrame | None) -> Any:
        """As :meth:`index_within`, patches without foreground anywhere."""
        return self.index_within(labels, frame, None)

    def index_within(self, labels: np.ndarray, frame: PatchFrame | None, content: np.ndarray | None) -> Any:
        """The other sampler's index, and the patches without foreground where they are asked for: 12 bytes a run."""
        inner = self._inner.index_within(labels, frame, content)
        if self.share == 0:
            return inner
        rule = self.rule(frame)
        assert frame is not None
        return MixedIndex(tuple(labels.shape), inner, background_starts(labels, content, frame, rule), rule)

    def draw(self, index: Any, frame: PatchFrame, random: np.random.RandomState) -> tuple[int, ...]:
        """Draw a start; one more random number says of which kind."""
        if self.share == 0:
            return self._inner.draw(index, frame, random)
        return self._one(index, frame, random, bool(random.random_sample() < self.share))

    def draw_numbered(
        self, index: Any, frame: PatchFrame, random: np.random.RandomState, number: int
    ) -> tuple[int, ...]:
        """Draw a start, of the kind whose turn it is."""
        if self.share == 0:
            return self._inner.draw_numbered(index, frame, random, number)
        return self._one(index, frame, random, self.wants_background(number))

    def wants_background(self, number: int) -> bool:
        """Whether draw ``number`` is one without foreground: ⌊(number + 1) · share⌋ > ⌊number · share⌋.

        >>> [BackgroundMixSampler(share=0.25).wants_background(i) for i in range(5)]
        [False, False, False, True, False]
        """
        return math.floor((number + 1) * self.share) > math.floor(number * self.share)

    def _one(
        self, index: MixedIndex, frame: PatchFrame, random: np.random.RandomState, background: bool
    ) -> tuple[int, ...]:
        if background and len(index.background):
            return index.background[int(random.randint(len(index.background), dtype=np.int64))]
        return self._inner.draw(index.inner, frame, random)
