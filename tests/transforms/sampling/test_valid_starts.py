from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.transforms import PatchFrame
from rarevox.transforms.sampling.valid_starts import runs_of, valid_starts


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    effective=st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3)),
    margin=st.integers(0, 2),
    least=st.integers(1, 4),
    overhang=st.booleans(),
    share=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_set_is_exactly_the_starts_that_hold_enough(
    shape: tuple[int, ...],
    effective: tuple[int, ...],
    margin: int,
    least: int,
    overhang: bool,
    share: float,
    seed: int,
) -> None:
    """Against counting in every position of a volume padded on all sides."""
    labels = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    frame = PatchFrame.of([e + 2 * margin for e in effective], margin)
    padded = np.pad(labels, 10)
    counts = {}
    for start in itertools.product(*(range(a, b + 1) for a, b in frame.limits(shape, overhang=overhang))):
        region = tuple(slice(s + margin + 10, s + margin + 10 + e) for s, e in zip(start, effective, strict=True))
        counts[start] = int(padded[region].sum())
    most = max(counts.values())
    expected = [s for s, n in counts.items() if n >= min(least, most)] if most else []
    found = valid_starts(labels, frame, least, overhang=overhang)
    assert [found[i] for i in range(len(found))] == expected


def test_runs_are_few_and_small() -> None:
    """A ball of radius 6 in 40³ and patches of 9³: a run at most for each line through the (12 + 9)² neighbourhood."""
    axes = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"))
    found = valid_starts(((axes - 20) ** 2).sum(0) <= 36, PatchFrame.of((9, 9, 9)))
    assert len(found) > 5000
    assert found.first.size <= 21**2
    assert found.first.nbytes + found.before.nbytes <= 12 * 21**2 + 8


def test_a_place_outside_the_set_is_refused() -> None:
    found = valid_starts(np.array([0, 1, 0]), PatchFrame.of((1,)))
    assert (len(found), found[0]) == (1, (1,))
    for number in (-1, 1):
        with pytest.raises(IndexError, match=f"start {number} of 1"):
            found[number]


@settings(max_examples=100, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    origin=st.tuples(*[st.integers(-3, 3)] * 3),
    wanted=st.tuples(*[st.integers(-6, 9)] * 3),
    low=st.tuples(*[st.integers(-6, 6)] * 3),
    width=st.integers(0, 6),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_nearest_start_in_a_box(
    grid: tuple[int, ...],
    origin: tuple[int, ...],
    wanted: tuple[int, ...],
    low: tuple[int, ...],
    width: int,
    share: float,
    seed: int,
) -> None:
    """Against a look at every start of the set, the first of those that are nearest."""
    found = runs_of(np.random.default_rng(seed).random(grid) < share, (9, 9, 9), origin, "")
    box = [(a, a + width) for a in low]
    every = [found[number] for number in range(len(found))]
    inside = [s for s in every if all(a <= value <= b for value, (a, b) in zip(s, box, strict=True))]
    distances = [sum((a - b) ** 2 for a, b in zip(start, wanted, strict=True)) for start in inside]
    assert found.nearest(wanted, box) == (inside[int(np.argmin(distances))] if inside else None)
