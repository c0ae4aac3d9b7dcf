"""Each sampler's distribution over patch starts, derived here by enumeration from the definition alone."""

from __future__ import annotations

import itertools
import pickle
import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.stats import chisquare

from rarevox.transforms import (
    ClassBalancedSampler,
    ForegroundUniformSampler,
    GridSampler,
    LesionBalancedSampler,
    PatchFrame,
    PatchSampler,
    UniformSampler,
)

Start = tuple[int, ...]
FAMILY = [
    ClassBalancedSampler(),
    LesionBalancedSampler(),
    ForegroundUniformSampler(),
    ForegroundUniformSampler(overhang=True),
    UniformSampler(),
    UniformSampler(overhang=True),
    GridSampler(),
]


def volume() -> np.ndarray:
    """6×5×4: a voxel of class 1 in the corner, a pair of class 1 inside, a bar of three of class 2 at the far face."""
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[0, 0, 0] = labels[3, 2, 2] = labels[4, 3, 3] = 1
    labels[5, 2:5, 1] = 2
    return labels


def all_starts(shape: tuple[int, ...], frame: PatchFrame, overhang: bool = False) -> Iterator[Start]:
    """Every start whose effective region lies in the volume, or holds it, or (overhang) touches it."""
    for start in itertools.product(*(range(-2 * p, n + p) for n, p in zip(shape, frame.size, strict=True))):
        fits = []
        for s, m, n, p in zip(start, frame.margin, shape, frame.size, strict=True):
            begin, end = s + m, s + p - m
            if overhang:
                fits.append(begin < n and end > 0)
            else:
                fits.append((begin >= 0 and end <= n) or (begin <= 0 and end >= n))
        if all(fits):
            yield start


def seen(labels: np.ndarray, start: Start, frame: PatchFrame) -> np.ndarray:
    """The labels in the effective region of a patch."""
    region = [slice(max(s + m, 0), max(s + p - m, 0)) for s, m, p in zip(start, frame.margin, frame.size, strict=True)]
    return labels[tuple(region)]


def islands(labels: np.ndarray) -> list[set[Start]]:
    """Components of voxels of one class that touch by face, edge or corner, by flooding."""
    left, found = set(map(tuple, np.argwhere(labels).tolist())), []
    while left:
        queue = deque([left.pop()])
        island = set(queue)
        while queue:
            here = queue.popleft()
            near = [tuple(np.add(here, step)) for step in itertools.product((-1, 0, 1), repeat=labels.ndim)]
            joined = {v for v in near if v in left and labels[v] == labels[here]}
            left -= joined
            island |= joined
            queue.extend(joined)
        found.append(island)
    return found


def by_groups(labels: np.ndarray, frame: PatchFrame, groups: list[set[Start]]) -> dict[Start, float]:
    """A group uniform, a voxel of it uniform, a patch that holds it uniform."""
    chance: Counter[Start] = Counter()
    starts = list(all_starts(labels.shape, frame))
    for group in groups:
        for voxel in group:
            holds = []
            for start in starts:
                box = zip(start, frame.margin, frame.size, voxel, strict=True)
                if all(s + m <= v < s + p - m for s, m, p, v in box):
                    holds.append(start)
            for start in holds:
                chance[start] += 1 / len(groups) / len(group) / len(holds)
    return dict(chance)


def uniform(starts: list[Start]) -> dict[Start, float]:
    return dict.fromkeys(starts, 1 / len(starts))


def expected_class_balanced(labels: np.ndarray, frame: PatchFrame) -> dict[Start, float]:
    classes = [c for c in np.unique(labels) if c]
    return by_groups(labels, frame, [set(map(tuple, np.argwhere(labels == c).tolist())) for c in classes])


def expected_lesion_balanced(labels: np.ndarray, frame: PatchFrame) -> dict[Start, float]:
    return by_groups(labels, frame, islands(labels))


def expected_foreground(least: int, overhang: bool) -> Callable[[np.ndarray, PatchFrame], dict[Start, float]]:
    def expected(labels: np.ndarray, frame: PatchFrame) -> dict[Start, float]:
        starts = all_starts(labels.shape, frame, overhang)
        return uniform([s for s in starts if np.count_nonzero(seen(labels, s, frame)) >= least])

    return expected


def expected_grid(labels: np.ndarray, frame: PatchFrame) -> dict[Start, float]:
    """Regions of 3×3×2 in 6×5×4 begin at 0, 3 | 0, 2 | 0, 2 (worked out by hand), the patch one voxel before them."""
    assert (labels.shape, frame.effective) == ((6, 5, 4), (3, 3, 2))
    return uniform(list(itertools.product((-1, 2), (-1, 1), (0, 2))))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ClassBalancedSampler(), expected_class_balanced),
        (LesionBalancedSampler(), expected_lesion_balanced),
        (ForegroundUniformSampler(), expected_foreground(1, False)),
        (ForegroundUniformSampler(3), expected_foreground(3, False)),
        (ForegroundUniformSampler(2, overhang=True), expected_foreground(2, True)),
        (UniformSampler(), lambda labels, frame: uniform(list(all_starts(labels.shape, frame)))),
        (UniformSampler(overhang=True), lambda labels, frame: uniform(list(all_starts(labels.shape, frame, True)))),
        (GridSampler(), expected_grid),
    ],
    ids=lambda value: str(value) if isinstance(value, PatchSampler) else "",
)
def test_distribution_by_enumeration(sampler: PatchSampler, expected: Callable[..., dict[Start, float]]) -> None:
    """Effective regions of 3×3×2 voxels in a volume of 6×5×4, structures in a corner and at a face."""
    labels, frame, draws = volume(), PatchFrame.of((5, 5, 2), (1, 1, 0)), 8000
    chances = expected(labels, frame)
    index, random = sampler.index(labels, frame), np.random.RandomState(7)
    drawn = Counter(sampler.draw(index, frame, random) for _ in range(draws))
    assert set(drawn) <= set(chances)
    common = [s for s, p in chances.items() if draws * p >= 5]  # the rest is too rare for chi-square alone: pooled
    counts, means = [drawn[s] for s in common], [draws * chances[s] for s in common]
    if len(common) < len(chances):
        counts.append(draws - sum(counts))
        means.append(draws - sum(means))
    assert chisquare(counts, means).pvalue > 1e-3


def test_chi_square_would_find_the_wrong_sampler() -> None:
    """The three foreground samplers differ on this volume, and the test above can tell them apart."""
    labels, frame = volume(), PatchFrame.of((5, 5, 2), (1, 1, 0))
    tables = [expected_class_balanced, expected_lesion_balanced, expected_foreground(1, False)]
    for a, b in itertools.permutations([table(labels, frame) for table in tables], 2):
        starts = [s for s in b if 8000 * b[s] >= 5]
        observed = [a.get(s, 0) for s in starts]
        means = np.array([b[s] for s in starts])
        assert chisquare(8000 * np.array(observed), 8000 * means * sum(observed) / means.sum()).pvalue < 1e-6


@pytest.mark.parametrize("sampler", FAMILY, ids=str)
def test_a_case_without_foreground_gives_every_position(sampler: PatchSampler) -> None:
    labels, frame = np.zeros((4, 3), np.uint8), PatchFrame.of((2, 2))
    index, random = sampler.index(labels, frame), np.random.RandomState(1)
    drawn = Counter(sampler.draw(index, frame, random) for _ in range(2000))
    positions = list(all_starts(labels.shape, frame, getattr(sampler, "overhang", False)))
    if isinstance(sampler, GridSampler):
        positions = list(itertools.product((0, 2), (0, 1)))
    assert set(drawn) == set(positions)
    assert chisquare(list(drawn.values())).pvalue > 1e-3


@pytest.mark.parametrize("sampler", FAMILY, ids=str)
def test_a_volume_smaller_than_the_patch_stays_inside_it(sampler: PatchSampler) -> None:
    labels = np.zeros((3, 2, 3), np.uint8)
    labels[1, 1, 1] = 1
    frame, random = PatchFrame.of((6, 6, 6), (1, 0, 1)), np.random.RandomState(2)
    index = sampler.index(labels, frame)
    allowed = set(all_starts(labels.shape, frame, getattr(sampler, "overhang", False)))
    assert {sampler.draw(index, frame, random) for _ in range(300)} <= allowed


def test_structures_under_min_foreground_give_the_patches_that_hold_most() -> None:
    """Two voxels side by side and one apart: windows of 2 that hold both are the most there is when 5 are asked for."""
    labels = np.array([0, 1, 1, 0, 0, 1, 0])
    sampler, frame = ForegroundUniformSampler(5), PatchFrame.of((2,))
    index = sampler.index(labels, frame)
    assert {sampler.draw(index, frame, np.random.RandomState(s)) for s in range(20)} == {(1,)}


def test_overhang_holds_every_voxel_equally_often_and_without_it_borders_are_held_less() -> None:
    """Regions of 3 in a line of 7: with overhang every voxel lies in 3 of them; without, the first one in 1."""
    frame = PatchFrame.of((3,))
    held = {
        overhang: [sum(s <= v < s + 3 for (s,) in all_starts((7,), frame, overhang)) for v in range(7)]
        for overhang in (True, False)
    }
    assert held == {True: [3] * 7, False: [1, 2, 3, 3, 3, 2, 1]}
    for overhang in (True, False):
        assert frame.limits((7,), overhang=overhang) == [(-2, 6) if overhang else (0, 4)]


@pytest.mark.parametrize("shape", [(7,), (8,), (3,), (10, 4)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_the_grid_covers_every_voxel_and_stays_inside(shape: tuple[int, ...], overlap: float) -> None:
    frame = PatchFrame.of((6,) * len(shape), 1)
    covered = np.zeros(shape, int)
    for start in itertools.product(*GridSampler(overlap).starts(shape, frame)):
        region = tuple(slice(max(s + 1, 0), s + 5) for s in start)
        covered[region] += 1
        assert start in set(all_starts(shape, frame))
    assert covered.min() >= 1


@pytest.mark.parametrize("sampler", FAMILY, ids=str)
def test_a_draw_costs_the_same_from_a_volume_a_thousand_times_as_large(sampler: PatchSampler) -> None:
    """Counted: bytes of the index, which is all that a draw sees, of memory that it takes, and calls of functions."""
    frame, costs = PatchFrame.of((6, 6, 6), 1), []
    for side in (12, 120):
        labels = np.zeros((side,) * 3, np.uint8)
        labels[2:5, 2:5, 2:5] = labels[side - 2 :, 3:6, 4] = 1
        index, random = sampler.index(labels, frame), np.random.RandomState(0)
        costs.append((len(pickle.dumps(index)), *cost_of(lambda: sampler.draw(index, frame, random))))  # noqa: B023
    assert all(large <= 2 * small for small, large in zip(*costs, strict=True))


def cost_of(draw: Callable[[], Start]) -> tuple[int, int]:
    """Of 20 draws: bytes at most, and calls of functions, those in C included."""
    draw()
    tracemalloc.start()
    for _ in range(20):
        draw()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for _ in range(20):
            draw()
    finally:
        sys.setprofile(before)
    return peak, calls


@pytest.mark.parametrize("sampler", FAMILY, ids=str)
def test_samplers_and_their_indices_go_to_worker_processes(sampler: PatchSampler) -> None:
    labels, frame = volume(), PatchFrame.of((3, 3, 3))
    index = sampler.index(labels, frame)
    there, its_index = pickle.loads(pickle.dumps((sampler, index)))
    assert there == sampler
    a, b = np.random.RandomState(3), np.random.RandomState(3)
    for _ in range(20):
        assert sampler.draw(index, frame, a) == there.draw(its_index, frame, b)


def test_bad_options_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="min_foreground is 0; expected a whole number"):
        ForegroundUniformSampler(0)
    with pytest.raises(ValueError, match="overlap is 1"):
        GridSampler(1)
    with pytest.raises(ValueError, match="give the index patch_size"):
        ForegroundUniformSampler().index(volume(), None)
