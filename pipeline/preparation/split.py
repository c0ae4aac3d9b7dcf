"""Dealing cases into a held-out set and folds: seeded, stratified, a subject never on two sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rarevox.pipeline.errors import RequestError


@dataclass(frozen=True)
class SplitItem:
    """What the split looks at: the case's name, its subject, its foreground (any unit) and the structures present."""

    case: str
    subject: str
    volume: float
    structures: frozenset[int]


@dataclass(frozen=True)
class Split:
    """The held-out cases' names, the fold of each of the others, and how many folds there are."""

    test: tuple[str, ...]
    fold: dict[str, int]
    folds: int


def split_cases(items: Sequence[SplitItem], *, holdout: float = 0.1, folds: int = 5, seed: int = 0) -> Split:
    """Hold out a share of the subjects and deal the others into folds.

    Subjects are sorted by the set of structures that they hold and, within it, by their foreground volume. The sorted
    line is cut into as many runs as subjects are held out, and one is drawn from each; what remains is cut into runs of
    ``folds`` subjects, and each run is dealt over the folds in a random order. So every part covers the whole range of
    sizes, and every rare combination of structures is spread as evenly as it goes. The result depends on the cases and
    the seed, never on the order of ``items``.

    With any share above 0, at least one subject is held out and at least one left, given two. Where there are fewer
    subjects than ``folds`` to train on, each becomes a fold of its own.

    Args:
        items: the cases, each name once.
        holdout: the share of the subjects to hold out, 0 or more and below 1.
        folds: how many folds, 1 or more; with 1, the same cases train and validate.
        seed: a whole number, 0 or more.

    Raises:
        RequestError: no cases, a share, number of folds or seed out of range.

    >>> items = [SplitItem(f"c{n}", f"s{n}", n, frozenset({1})) for n in range(20)]
    >>> split = split_cases(items, holdout=0.1, folds=3)
    >>> len(split.test), len(split.fold), sorted(set(split.fold.values()))
    (2, 18, [0, 1, 2])
    """
    require_split_options(holdout=holdout, folds=folds, seed=seed)
    if not items:
        raise RequestError("there are no cases to split")
    generator = np.random.default_rng(seed)
    groups = _grouped(items)
    held = min(max(1, round(holdout * len(groups))), len(groups) - 1) if holdout > 0 else 0
    chosen = {int(generator.choice(run)) for run in np.array_split(np.arange(len(groups)), held)} if held else set()
    remaining = [group for number, group in enumerate(groups) if number not in chosen]
    folds = min(folds, len(remaining))
    fold: dict[str, int] = {}
    for start in range(0, len(remaining), folds):
        order = generator.permutation(folds)
        for group, number in zip(remaining[start : start + folds], order, strict=False):
            fold.update({item.case: int(number) for item in group})
    test = sorted(item.case for number in chosen for item in groups[number])
    return Split(tuple(test), dict(sorted(fold.items())), folds)


def require_split_options(*, holdout: float, folds: int, seed: int) -> None:
    """Refuse a share, a number of folds or a seed out of range (RequestError), before any file is read."""
    if not 0 <= holdout < 1:
        raise RequestError(f"--holdout is {holdout:g}; expected a share of 0 or more and below 1, such as 0.1")
    if folds < 1:
        raise RequestError(f"--folds is {folds}; expected 1 or more")
    if seed < 0:
        raise RequestError(f"--seed is {seed}; expected 0 or more")


def _grouped(items: Iterable[SplitItem]) -> list[list[SplitItem]]:
    """The subjects, each a list of its cases, sorted by structures held, then by foreground volume, then by name."""
    subjects: dict[str, list[SplitItem]] = {}
    for item in sorted(items, key=lambda item: item.case):
        subjects.setdefault(item.subject, []).append(item)

    def stratum(group: list[SplitItem]) -> tuple[list[int], float, str]:
        held = frozenset().union(*(item.structures for item in group))
        return sorted(held), sum(item.volume for item in group) / len(group), group[0].case

    return sorted(subjects.values(), key=stratum)


def joined_subjects(subjects: dict[str, str], twins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Subjects by case, with those merged that share a twin (an identical scan under two names).

    >>> joined_subjects({"a": "s1", "b": "s2", "c": "s2", "d": "s4"}, [("a", "b")])
    {'a': 's1', 'b': 's1', 'c': 's1', 'd': 's4'}
    """
    merged = dict(subjects)
    for first, second in twins:
        keep, drop = sorted((merged[first], merged[second]))
        merged = {case: keep if subject == drop else subject for case, subject in merged.items()}
    return merged
