"""Which files of a folder are which case and which channel: by pattern, by number or by whole words of their names.

`prepare` and `predict` share this. What a run learnt of it (``channel_files`` in its configurations, an entry for each
channel) is a pattern, where `prepare` was given ``--channel NAME=PATTERN``, or the number at the end of its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from rarevox.pipeline.data.formats import stem_of_name

Rule = Sequence[int | str]
Words = tuple[str, ...]

_NUMBERED = re.compile(r"(.+)_(\d{4})")
_MAY_LACK = "a run trained with channel_dropout may go without it"
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Group:
    """The files of one case.

    Attributes:
        name: of the case; empty where it is the folder's.
        files: one for each channel in their order, or one that holds all.
        fault: why they are no case, if they are none; ``files`` are then those that are there.
        missing: names of channels that it lacks and may lack.
    """

    name: str
    files: tuple[Path, ...]
    fault: str = ""
    missing: tuple[str, ...] = ()


class NamedGroup(NamedTuple):
    """A :class:`Group` by the names of its files."""

    name: str
    files: tuple[str, ...]
    fault: str = ""
    missing: tuple[str, ...] = ()


def numbered(name: str) -> tuple[str, int | None]:
    """A name without the four digits that may number a channel, and these.

    >>> numbered("case_1_0002"), numbered("case_1"), numbered("_0000")
    (('case_1', 2), ('case_1', None), ('_0000', None))
    """
    found = _NUMBERED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)


def words(text: str) -> Words:
    """The letters and digits of a name between its other characters, in small letters.

    >>> words("sub-01_T1ce.v2")
    ('sub', '01', 't1ce', 'v2')
    """
    return tuple(word.lower() for word in _WORD.findall(text))


def channel_by_words(name: str, channels: Sequence[str]) -> tuple[int, str] | None:
    """The channel whose words stand in a name, the longest where there are several, and the name without them.

    >>> channel_by_words("p1_T1ce", ["T1", "T1ce"]), channel_by_words("p1_T1 Gd_x", ["T1", "T1 Gd"])
    ((1, 'p1'), (1, 'p1_x'))
    >>> channel_by_words("p1_T1w", ["T1"]) is None
    True
    """
    found = list(_WORD.finditer(name))
    present = tuple(match[0].lower() for match in found)
    places = [
        (len("".join(wanted)), -index, at, at + len(wanted))
        for index, wanted in enumerate(map(words, channels))
        for at in range(len(present) - len(wanted) + 1)
        if wanted and present[at : at + len(wanted)] == wanted
    ]
    if not places:
        return None
    _, index, first, end = max(places)
    before, after = name[: found[first].start()].rstrip(" _-."), name[found[end - 1].end() :].lstrip(" _-.")
    return -index, "_".join(part for part in (before, after) if part)


def group(
    files: Iterable[Path],
    channels: Sequence[str],
    rule: Rule | None = None,
    *,
    by_name: bool = True,
    optional: Sequence[str] = (),
) -> list[Group]:
    """:func:`group_names` of paths in one folder."""
    by_its_name = {file.name: file for file in files}
    folder = next(iter(by_its_name.values())).parent if by_its_name else ""
    found = group_names(by_its_name, channels, rule, by_name=by_name, folder=folder, optional=optional)
    return [Group(one.name, tuple(by_its_name[name] for name in one.files), one.fault, one.missing) for one in found]


def group_names(
    names: Iterable[str],
    channels: Sequence[str],
    rule: Rule | None = None,
    *,
    by_name: bool = True,
    folder: str | Path = "",
    optional: Sequence[str] = (),
) -> list[NamedGroup]:
    """The cases that the volume files of one folder make up, sorted by their first file.

    By pattern, where the run has patterns and one matches; then by number: ``CASE_0000`` is the first channel of CASE,
    or what the run's numbers say, and a CASE with some of a network's channels and without others is a fault. Digits
    that number no channel stay in the name, and so they do for a network of one channel where CASE has several numbers
    and no run says what they are. Then, for several channels, by whole words of the channels' names, the longest match;
    where each channel has one file the case is the folder, else files whose names are alike but for the channel belong
    together. Every other file is a scan for itself, unless it goes with a case that was found.

    The time grows with the number of files, not with its square.

    Args:
        names: of volumes in one folder, each once.
        channels: names of the network's channels.
        rule: what the run knows.
        by_name: False: files that were named one by one are no folder; only numbers count.
        folder: in which they lie, for patterns that name folders.
        optional: names of the channels that a case may lack, but for one.
    """
    names = sorted(names)
    if by_name and rule and all(isinstance(one, str) for one in rule):
        patterns = [str(one) for one in rule]
        above = Path(folder).absolute().parts if any("/" in pattern for pattern in patterns) else ()
        placed = {name: one for name in names if (one := _by_pattern(name, patterns, above)) is not None}
        if placed:
            return _named(placed, channels, optional)
    numbers = [one for one in rule or () if isinstance(one, int)]
    groups, rest = _by_number(names, channels, numbers, optional)
    placed = {}
    if by_name and len(channels) > 1:
        placed = {name: one for name in rest if (one := channel_by_words(stem_of_name(name), channels)) is not None}
    named = _named(placed, channels, optional) if placed else []
    cases = {words(one.name) for one in named}
    alone = [name for name in rest if name not in placed and not (cases and _goes_with(name, cases))]
    every = [*groups, *named, *(NamedGroup(stem_of_name(name), (name,)) for name in alone)]
    return sorted(every, key=lambda one: one.files[0])


def _by_pattern(name: str, patterns: Sequence[str], above: Sequence[str]) -> tuple[int, str] | None:
    """The channel whose pattern matches, that with the most letters of its own, and what its one ``*`` stands for.

    Where no pattern matches with the folders that it names, as in a flat folder, its last part will do, unless another
    pattern ends in the same.
    """
    ends = [pattern.split("/")[-1] for pattern in patterns]
    fitting = [(len(p.replace("*", "")), -n) for n, p in enumerate(patterns) if _matches(name, above, p)] or [
        (len(end.replace("*", "")), -n) for n, end in enumerate(ends) if ends.count(end) == 1 and fnmatchcase(name, end)
    ]
    if not fitting:
        return None
    index = -max(fitting)[1]
    before, star, after = patterns[index].split("/")[-1].partition("*")
    plain = star and not re.search(r"[*?\[]", before + after)
    return index, name[len(before) : len(name) - len(after)].strip(" _-.") if plain else ""


def _matches(name: str, above: Sequence[str], pattern: str) -> bool:
    """Whether a pattern matches a file's name or, where it has slashes, as much of its path.

    >>> _matches("T1.nii.gz", ("p1", "anat"), "anat/*.nii.gz"), _matches("T1.nii.gz", ("p1", "dwi"), "anat/*.nii.gz")
    (True, False)
    """
    parts = pattern.split("/")
    own = (*above, name)[-len(parts) :]
    return len(own) == len(parts) and all(map(fnmatchcase, own, parts))


def _by_number(
    files: Sequence[str], channels: Sequence[str], numbers: Sequence[int], optional: Sequence[str]
) -> tuple[list[NamedGroup], list[str]]:
    """The cases whose channels are numbered, and the files that are none of theirs."""
    known = list(numbers) or list(range(len(channels)))
    cases: dict[str, dict[int, list[str]]] = {}
    for file in files:
        name, number = numbered(stem_of_name(file))
        if number is not None:
            cases.setdefault(name, {}).setdefault(number, []).append(file)
    groups, taken = [], set[str]()
    for name, present in cases.items():
        other = len(channels) == 1 and not numbers and set(present) != set(known)
        if other or not set(present) & set(known):
            continue
        taken.update(file for several in present.values() for file in several)
        labels = [f"_{number:04d} ({channel})" for number, channel in zip(known, channels, strict=True)]
        groups.append(_case(name, [present.get(number, []) for number in known], labels, channels, optional))
    return groups, [file for file in files if file not in taken]


def _named(placed: dict[str, tuple[int, str]], channels: Sequence[str], optional: Sequence[str]) -> list[NamedGroup]:
    """The cases of files whose channel is known, with what is left of their names."""
    of_channel: list[list[str]] = [[] for _ in channels]
    for file, (channel, _) in placed.items():
        of_channel[channel].append(file)
    if max(map(len, of_channel)) == 1 and _alike({words(left) for _, left in placed.values()}):
        return [_case("", of_channel, channels, channels, optional)]
    cases: dict[Words, tuple[str, list[list[str]]]] = {}
    for file, (channel, left) in placed.items():
        cases.setdefault(words(left), (left, [[] for _ in channels]))[1][channel].append(file)
    return [_case(name, found, channels, channels, optional) for name, found in cases.values()]


def _alike(names: set[Words]) -> bool:
    """Whether names differ only by what some have more: ``p1`` and ``p1_brain``, but not ``p1`` and ``p2``."""
    sets = sorted((set(name) for name in names), key=len)
    return all(few <= sets[-1] for few in sets)


def _case(
    name: str,
    found: Sequence[Sequence[str]],
    labels: Sequence[str],
    channels: Sequence[str],
    optional: Sequence[str],
) -> NamedGroup:
    """One case of the files of each channel."""
    files = tuple(file for several in found for file in several)
    missing = [label for label, several in zip(labels, found, strict=True) if not several]
    twice = [label for label, several in zip(labels, found, strict=True) if len(several) > 1]
    there = ", ".join(files)
    lacks = tuple(channel for channel, several in zip(channels, found, strict=True) if not several)
    if lacks and not twice and set(lacks) <= set(optional):
        return NamedGroup(name, files, missing=lacks)
    if missing:
        free = f"this run may go without {', '.join(optional)} alone" if optional else _MAY_LACK
        fault = f"no file is the channel {', '.join(missing)}; there is {there}; add the file ({free})"
        return NamedGroup(name, files, fault)
    if twice:
        return NamedGroup(name, files, f"several files are the channel {', '.join(twice)}: {there}")
    return NamedGroup(name, files)


def _goes_with(file: str, cases: set[Words]) -> bool:
    """Whether a file is another one of a case that was found: its reference, a mask, a further sequence."""
    name = words(stem_of_name(file))
    return any(name[:length] in cases for length in range(len(name) + 1))
