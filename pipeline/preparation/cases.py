"""What a data source is made of: cases with their files, and the faults found in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

THERE = "; there are "
"""Begins the end of a message that lists a case's files, by which no fault differs from another."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one case.

    Attributes:
        case: the case's name.
        check: the name of the check that found it, as listed in ``docs/prepare.md``.
        severity: ``error`` (the case cannot be used) or ``warning`` (it can, but look at it).
        message: one sentence for the reader: the value found and the value expected.
        file: the file it was found in; empty where no single file is to blame.
    """

    case: str
    check: str
    severity: str
    message: str
    file: str = ""


@dataclass(frozen=True)
class Case:
    """One scan with its reference: ``image`` lists the files of the channels in order (one file may hold several).

    ``part`` is where a stated split puts it: ``test``, ``training`` (any fold), a fold's number, or empty.
    """

    case: str
    image: tuple[Path, ...]
    label: Path
    mask: Path | None = None
    subject: str = ""
    part: str = ""


@dataclass(frozen=True)
class Source:
    """What was found at a source, before a voxel is read.

    Attributes:
        name: what the data is called.
        root: the folder that its files are named from.
        channels: the channels' names, or None where only the files can tell how many there are.
        labels: name to value without the background, or None where only the files can tell.
        cases: the cases whose files were all found.
        faults: what is wrong with the others.
        kind: the layout it was recognised as, for the summary.
        composites: unions of labels that the source names, name to values.
        channel_files: what tells the files of the channels apart, an entry for each, if something does; see
            :mod:`rarevox.pipeline.data.grouping`.
        ignored: the value of voxels that nobody annotated (nnU-Net's label ``ignore``), which is no structure.
    """

    name: str
    root: Path
    channels: tuple[str, ...] | None
    labels: dict[str, int] | None
    cases: tuple[Case, ...]
    faults: tuple[Fault, ...] = field(default=())
    kind: str = ""
    composites: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ignored: int | None = None
    channel_files: tuple[str | int, ...] | None = None


REPEATED = re.compile(r"(.*\d.*?)[_-](?:time(?:point)?|tp|visit|ses(?:sion)?)[_-]?\d+$", re.IGNORECASE)
"""Names of scans of one subject at several times."""


def named_subject(case: str, pattern: str | None = None) -> str:
    """The subject that a case belongs to: what ``pattern`` matches in its name (its first group that does, where it has
    groups).

    Without a pattern, a BIDS name gives its ``sub-`` part, one that ends in the number of a time, visit or session what
    stands before (where that holds a number of its own), and any other name stands for itself.

    >>> named_subject("sub-07_ses-2"), named_subject("P12_followup", r"^(P\\d+)_"), named_subject("case_3")
    ('sub-07', 'P12', 'case_3')
    >>> named_subject("ms_14_time2"), named_subject("7-visit-1"), named_subject("cohort_time2")
    ('ms_14', '7', 'cohort_time2')
    """
    found = re.search(pattern, case) if pattern else re.search(r"^(sub-[^_]+)", case) or REPEATED.match(case)
    if not found:
        return case
    return next((group for group in found.groups() if group), found.group(0))
