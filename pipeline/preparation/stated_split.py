"""A split that is given: by the table's column ``split``, or by a file from an earlier prepare or from nnU-Net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.preparation.cases import Case, Fault, Source
from rarevox.pipeline.preparation.checks.catalogue import fault
from rarevox.pipeline.preparation.split import Split, SplitItem, split_cases
from rarevox.pipeline.words import listed

TEST, TRAINING = "test", "training"


def read_part(text: str, where: str) -> str:
    """Where a case goes: ``test``, ``training`` (into any fold) or the number of its fold, from 0.

    >>> read_part("Test", "row 1"), read_part("train", "row 2"), read_part(" 03", "row 3"), read_part("", "row 4")
    ('test', 'training', '3', 'training')

    Raises:
        RequestError: anything else.
    """
    word = text.strip().lower()
    if word.isdecimal():
        return str(int(word))
    known = {"test": TEST, "train": TRAINING, "training": TRAINING, "": TRAINING}
    if word not in known:
        raise RequestError(f"{where} says split {text!r}; expected test, training or the number of a fold, from 0")
    return known[word]


def with_split(source: Source, file: Path | None) -> Source:
    """The source with its cases placed as a file says; a case that the file does not name goes into any fold, of
    nnU-Net's single split to its subject or to those that train.

    Raises:
        RequestError: neither a ``dataset.json`` of prepare nor a ``splits_final.json`` of nnU-Net, or of other cases.
    """
    if file is None:
        return source
    parts = read_split(Path(file).expanduser())
    if not parts.keys() & {case.case for case in source.cases}:
        raise RequestError(
            f"no case of {source.root} is named in --split {file}; it names {', '.join(list(parts)[:3])}"
        )
    others = _others(read_json(Path(file).expanduser()), parts)
    homes = {case.subject: parts[case.case] for case in source.cases if case.case in parts} if others == "1" else {}
    return replace(
        source,
        cases=tuple(replace(case, part=parts.get(case.case, homes.get(case.subject, others))) for case in source.cases),
    )


def _others(content: Any, parts: Mapping[str, str]) -> str:
    """Where cases go that a file of a split does not name."""
    if isinstance(content, dict):  # of a dataset of one fold all others are in that fold too
        return "0" if set(parts.values()) - {TEST} == {"0"} else TRAINING
    # Of nnU-Net's single split one set alone validates. Without a list of those that train, all others are dealt there.
    return "1" if len(content) == 1 and "1" in parts.values() else TRAINING


def read_split(file: Path) -> dict[str, str]:
    """Case to part from ``dataset.json`` (its ``test`` and folds) or ``splits_final.json`` (the folds' ``val``; those
    that train and never validate are one fold more, so that each of the others trains on them).

    Raises:
        RequestError: another file, a case that validates in several folds, or one that a fold neither trains nor
            validates on.
    """
    content = read_json(file)
    try:
        if isinstance(content, list):
            folds = [[str(name) for name in fold["val"]] for fold in content]
            named = [str(name) for fold in content for name in fold.get("train", ())]
        else:
            parts = {str(case["case"]): str(int(case["fold"])) for case in content["training"]}
            return parts | {str(case["case"]): TEST for case in content["test"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RequestError(
            f"{file} holds no split; expected a dataset.json that rarevox prepare wrote, or nnU-Net's splits_final.json"
        ) from None
    held: dict[str, str] = {}
    for number, names in enumerate(folds):
        for name in names:
            first = held.setdefault(name, str(number))
            if first != str(number):
                raise RequestError(
                    f"{file} validates on {name} in the splits {first} and {number}; expected each case in one: of "
                    "splits that were drawn anew each time give one alone, in a file of its own"
                )
    parts = dict.fromkeys(named, str(len(folds))) | held
    for number, fold in enumerate(content):
        left = parts.keys() - {str(name) for name in (*fold.get("train", parts), *fold["val"])}
        if left:  # kept out of this split on purpose, as further scans of who validates are: they may not train in it
            raise RequestError(
                f"{file} leaves {listed(sorted(left), 3)} out of split {number}, and a fold trains on all cases but "
                "its own; expected every case in the train or val list of each split: give a file of that split "
                "alone and prepare the cases that it names, or --subject, which keeps a subject's scans together"
            )
    return parts


def is_stated(cases: Iterable[Case]) -> bool:
    """Whether any case was placed beforehand."""
    return any(case.part for case in cases)


def follow_split(items: Sequence[SplitItem], parts: Mapping[str, str], *, folds: int, seed: int) -> Split:
    """The split as stated; cases for any fold go to that of their subject, or are dealt as usual.

    Where a single fold is stated, it is what validates and all others train: they are fold 1.

    Args:
        items: the cases.
        parts: of each case, ``test``, ``training`` or a fold's number.
        folds: how many, where no number is stated; else as many as are numbered.
        seed: of the dealing.

    Raises:
        RequestError: numbers with a gap, or nothing to train on.
    """
    test = tuple(sorted(item.case for item in items if parts[item.case] == TEST))
    fold = {item.case: int(parts[item.case]) for item in items if parts[item.case].isdecimal()}
    numbered = sorted(set(fold.values()))
    if numbered != list(range(len(numbered))):
        raise RequestError(f"the stated split has the folds {numbered}; expected 0 to the number of folds less one")
    home = {item.subject: fold[item.case] for item in items if item.case in fold}
    free = [item for item in items if parts[item.case] == TRAINING]
    fold |= {item.case: home[item.subject] for item in free if item.subject in home}
    dealt = [item for item in free if item.subject not in home]
    if numbered == [0] and dealt:  # one set is stated to validate: the others train
        fold |= {item.case: 1 for item in dealt}
        return Split(test, dict(sorted(fold.items())), 2)
    count = len(numbered) or folds
    if dealt:
        found = split_cases(dealt, holdout=0.0, folds=count, seed=seed)
        fold |= found.fold
        count = len(numbered) or found.folds
    if not fold:
        raise RequestError("the stated split leaves no case for training; expected some that are not test")
    return Split(test, dict(sorted(fold.items())), count)


def split_leaks(cases: Sequence[Case], twins: Iterable[tuple[str, str, float]]) -> list[Fault]:
    """Cases that a stated split puts on another side than a case of the same subject, or than a copy of their scan.

    The sides are the test section and each fold; a case for any fold is on another side than the test section alone.
    The fault is laid at the case that trains, so that leaving the faulty out keeps the test section whole.

    Args:
        cases: with their subjects and parts.
        twins: pairs of cases with (nearly) the same image, and their correlation.
    """
    sides = {case.case: case.part for case in cases if case.part}
    by_subject: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: (case.part != TEST, case.part, case.case)):
        if case.case in sides:
            by_subject.setdefault(case.subject, []).append(case.case)
    faults = []
    for subject, names in by_subject.items():
        for name in names[1:]:
            if _differ(sides[name], sides[names[0]]):
                message = (
                    f"subject {subject} is in {_side(sides[name])} and, as {names[0]}, in {_side(sides[names[0]])}"
                )
                faults.append(fault(name, "subject-across-split", message))
    for pair in twins:
        first, second = sorted(pair[:2], key=lambda name: (sides.get(name) != TEST, name))
        if first in sides and second in sides and _differ(sides[first], sides[second]):
            message = (
                f"the scan is in {_side(sides[second])} and, as {first}, in {_side(sides[first])} "
                f"(correlation {pair[2]:.3f})"
            )
            faults.append(fault(second, "duplicate-across-split", message))
    return faults


def _differ(part: str, other: str) -> bool:
    """Whether two parts are different sides: a case for any fold goes with every fold."""
    return part != other and (TRAINING not in (part, other) or TEST in (part, other))


def _side(part: str) -> str:
    return {TEST: "the test section", TRAINING: "the training section"}.get(part, f"fold {part}")
