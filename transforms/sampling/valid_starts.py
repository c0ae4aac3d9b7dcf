"""All patch positions of a case that hold enough foreground, as runs, so that one of them can be drawn uniformly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rarevox.transforms.sampling.patch_frame import PatchFrame


@dataclass(frozen=True, eq=False)
class ValidStarts:
    """A set of patch starts in a volume: runs of consecutive starts in C order of a grid.

    Memory: 12 bytes a run (16 in grids of 2³¹ starts and more), about one run for each line of voxels, along the last
    axis, that passes the neighbourhood of a structure: at most 0.7 MB for a structure that spans a volume of
    240×240×155.

    Attributes:
        shape: the volume's size, voxels.
        origin: the start, which may be negative, at the grid's first corner.
        grid: starts an axis.
        first: the flat place in the grid at which each run begins.
        before: how many starts lie in the runs before each run; one more entry at the end, the number of all starts.
        rule: how the set was made.
    """

    shape: tuple[int, ...]
    origin: tuple[int, ...]
    grid: tuple[int, ...]
    first: np.ndarray
    before: np.ndarray
    rule: str

    def __len__(self) -> int:
        return int(self.before[-1])

    def __getitem__(self, number: int) -> tuple[int, ...]:
        """The start at place ``number`` of the set; the cost grows with the logarithm of the number of runs."""
        if not 0 <= number < len(self):
            raise IndexError(f"start {number} of {len(self)}")
        run = int(np.searchsorted(self.before, number, side="right")) - 1
        place = int(self.first[run]) + number - int(self.before[run])
        return tuple(int(p) + o for p, o in zip(np.unravel_index(place, self.grid), self.origin, strict=True))

    def nearest(self, wanted: Sequence[int], box: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
        """The start nearest to ``wanted`` of those in a box, the first in C order where several are; None where the box
        holds none.

        Args:
            wanted: a start, in the set or not.
            box: first and last start, an axis each.

        >>> runs_of(np.array([True, False, False, True]), (9,), (-1,), "").nearest((1,), [(-1, 5)])
        (2,)
        """
        limits = zip(box, self.origin, self.grid, strict=True)
        ranges = [np.arange(max(low, first), min(high, first + n - 1) + 1) for (low, high), first, n in limits]
        if not len(self) or not all(map(len, ranges)):
            return None
        places = np.zeros([1] * len(ranges), np.int64)
        distances = np.zeros([1] * len(ranges), np.int64)
        for starts, aim, first, n in zip(np.ix_(*ranges), wanted, self.origin, self.grid, strict=True):
            places = places * n + (starts - first)
            distances = distances + (starts - aim) ** 2
        run = np.searchsorted(self.first, places, side="right") - 1
        held = (run >= 0) & (places - self.first[run] < np.diff(self.before)[run])
        if not held.any():
            return None
        found = np.unravel_index(np.where(held, distances, np.iinfo(np.int64).max).argmin(), held.shape)
        return tuple(int(starts[place]) for starts, place in zip(ranges, found, strict=True))


def start_rule(frame: PatchFrame, min_foreground: int, overhang: bool) -> str:
    """The ``rule`` of a set of starts."""
    return f"patches {frame.size}, margin {frame.margin}, min_foreground {min_foreground}, overhang {overhang}"


def valid_starts(
    labels: np.ndarray, frame: PatchFrame, min_foreground: int = 1, *, overhang: bool = False
) -> ValidStarts:
    """Every start whose effective region holds at least ``min_foreground`` foreground voxels.

    Counted exactly, by sums over windows along one axis after the other, on the box that the foreground fills. It
    takes about 16 bytes for each start whose region touches that box while it runs.

    Args:
        labels: (*spatial), 0 is background.
        frame: size and margin of the patch.
        min_foreground: voxels, 1 or more. Where no patch holds so many, the patches that hold the most are the set.
        overhang: see :meth:`rarevox.transforms.sampling.patch_frame.PatchFrame.limits`.

    Returns:
        The set; it is empty where the case has no foreground.

    Example:
        >>> found = valid_starts(np.array([0, 0, 1, 1, 0, 0]), PatchFrame.of((2,)), 2)
        >>> [found[i] for i in range(len(found))]
        [(2,)]
    """
    rule = start_rule(frame, min_foreground, overhang)
    counts, origin = foreground_counts(np.asarray(labels), frame, overhang)
    if counts.size == 0:
        return ValidStarts(labels.shape, origin, counts.shape, np.zeros(0, np.int32), np.zeros(1, np.int64), rule)
    return runs_of(counts >= min(min_foreground, int(counts.max())), labels.shape, origin, rule)


def runs_of(held: np.ndarray, shape: tuple[int, ...], origin: tuple[int, ...], rule: str) -> ValidStarts:
    """The set of the starts that are marked in a grid of starts, the first of which is ``origin``.

    >>> found = runs_of(np.array([True, False, True, True]), (9,), (-1,), "")
    >>> [found[i] for i in range(len(found))]
    [(-1,), (1,), (2,)]
    """
    enough = np.zeros(held.size + 2, np.int8)
    enough[1:-1] = held.ravel()
    edges = np.flatnonzero(np.diff(enough))
    first, end = edges[::2], edges[1::2]
    before = np.concatenate([[0], np.cumsum(end - first)])
    kind = np.int32 if held.size < 2**31 else np.int64
    return ValidStarts(tuple(shape), origin, held.shape, first.astype(kind), before, rule)


def starts_with_foreground(labels: np.ndarray, frame: PatchFrame) -> tuple[np.ndarray, tuple[int, ...]]:
    """Which starts, of those that can, hold some foreground in their effective region, and the first of them.

    >>> starts_with_foreground(np.array([0, 0, 0, 1, 0]), PatchFrame.of((2,)))
    (array([ True,  True]), (2,))
    """
    counts, origin = foreground_counts(np.asarray(labels), frame, overhang=False)
    return counts > 0, origin


def foreground_counts(labels: np.ndarray, frame: PatchFrame, overhang: bool) -> tuple[np.ndarray, tuple[int, ...]]:
    """Foreground voxels in the effective region of every patch that can hold some, and the first of their starts.

    >>> foreground_counts(np.array([0, 0, 0, 1, 1]), PatchFrame.of((2,)), False)
    (array([1, 2], dtype=int32), (2,))
    """
    counts = labels != 0
    origin = []
    for axis, (low, high) in enumerate(frame.limits(labels.shape, overhang=overhang)):
        width, margin = frame.effective[axis], frame.margin[axis]
        filled = np.flatnonzero(counts.any(axis=tuple(a for a in range(counts.ndim) if a != axis)))
        if filled.size == 0:
            return np.zeros((0,) * labels.ndim, np.int32), (0,) * labels.ndim
        begin, last = int(filled[0]), int(filled[-1])
        starts = np.arange(max(low, begin - width + 1 - margin), min(high, last - margin) + 1)
        kept = [slice(None)] * counts.ndim
        kept[axis] = slice(begin, last + 1)
        counts = window_sums(counts[tuple(kept)], axis, starts + margin - begin, width)
        origin.append(int(starts[0]))
    return counts, tuple(origin)


def window_sums(values: np.ndarray, axis: int, begins: np.ndarray, width: int) -> np.ndarray:
    """Sums of ``values`` over [begin, begin + width) along ``axis``, nothing being added beyond the ends.

    >>> window_sums(np.array([1, 2, 4]), 0, np.array([-1, 0, 1, 2]), 2).tolist()
    [1, 3, 6, 4]
    """
    size = values.shape[axis]
    shape = list(values.shape)
    shape[axis] += 1
    sums = np.zeros(shape, np.int32 if values.size < 2**31 else np.int64)
    inner = [slice(None)] * values.ndim
    inner[axis] = slice(1, None)
    np.cumsum(values, axis=axis, out=sums[tuple(inner)])
    result = sums.take(np.clip(begins + width, 0, size), axis)
    result -= sums.take(np.clip(begins, 0, size), axis)
    return result
