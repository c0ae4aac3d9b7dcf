"""Whether a cohort looks the same in the mirror.

If every case shows the same side, mirrored patches teach what never comes.

A left kidney, a liver, hippocampi all turned to one side, or structures named left and right: there mirroring left and
right costs accuracy, or teaches the wrong label. Lesions anywhere in a whole brain are no worse for it.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.form import fingerprint_rows
from rarevox.pipeline.data.spacing import along_ras

SIDED_SHARE = 0.85
SIGNIFICANCE = 0.05
LEAST_OFFSET = 0.03
"""Of the scan's width: a head is a few millimetres out of symmetry, and may be mirrored all the same."""


FEWEST = 6
"""Subjects that agree, of which a sign test can tell at all."""
_NAMED = re.compile(r"(?i:(?:^|[^a-z])(?:left|right|lh|rh)(?:[^a-z]|$))|(?:^|[^A-Za-z])(?:Left|Right)(?=[A-Z])")


def sided_cohort(dataset: Dataset) -> str | None:
    """:func:`sided` for the subjects of a prepared dataset; None where its fingerprint does not say.

    Scans of one subject are one voice, of their mean offsets. Of fewer subjects than a sign test needs the names of the
    structures count (left, right), and two structures that lie alike to one another in all of them: mirrored patches
    would exchange them.
    """
    rows = fingerprint_rows(dataset.path)
    names = {str(value): name for name, value in dataset.labels.items()}
    by_subject: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        sizes, spacings = (along_ras(row["orientation"], row[key]) for key in ("size", "spacing_mm"))
        width_mm, case = sizes[0] * spacings[0], str(row.get("case", len(by_subject)))
        own = by_subject.setdefault(dataset.subjects.get(case, case), {})
        for value, mm in row.get("right_mm", {}).items():
            if value in names:
                own.setdefault(names[value], []).append(mm / width_mm)
    subjects = [{name: statistics.fmean(several) for name, several in own.items()} for own in by_subject.values()]
    return sided(subjects, least=LEAST_OFFSET) or (_of_few(subjects, dataset) if len(subjects) < FEWEST else None)


def _of_few(subjects: Sequence[Mapping[str, float]], dataset: Dataset) -> str | None:
    """Which structures have a side, as far as that can be told of a few subjects."""
    for name in dataset.structures:
        if _NAMED.search(name):
            return f"{name} has its side in its name"
    for first, second in itertools.combinations(dataset.structures, 2):
        offsets = [one[first] - one[second] for one in subjects if first in one and second in one]
        alike = len(offsets) > 1 and (min(offsets) > 0 or max(offsets) < 0)
        if alike and _distance(offsets) >= LEAST_OFFSET:
            side = "right" if offsets[0] > 0 else "left"
            return f"{first} lies to the {side} of {second} in all of {len(offsets)} cases, too few to tell more"
    return None


def sided(cases: Sequence[Mapping[str, float]], *, least: float = 0.0) -> str | None:
    """What lies on the same side in nearly all cases, or None where left and right may be exchanged.

    Looked at are each structure's offset from the middle of the scan and the offset of each structure from each other
    one. One of them is sided where the more frequent sign holds in at least 85 % of the cases that have it, and a fair
    coin would do so (either sign, a sign test) with a probability under 0.05: six cases that agree are the fewest.
    Offsets whose median is below ``least`` are no matter of sides.

    Args:
        cases: for each case, by structure, how far to the right of the scan's middle its centre lies.
        least: the least median offset, in the same unit.

    Returns:
        Which, as text with the figures, the clearest one first; None where nothing is sided or the cases are too few.

    >>> sided([{"liver": 40.0 + n} for n in range(8)])
    'liver lies to the right of the middle in 8 of 8 cases'
    >>> sided([{"lesion": 10.0}, {"lesion": -12.0}] * 8) is None
    True
    """
    names = list(dict.fromkeys(name for case in cases for name in case))
    found = []
    for name in names:
        offsets = [case[name] for case in cases if name in case]
        found.append((_distance(offsets), *_agreement(offsets), f"{name} lies to the {{side}} of the middle"))
    for first, second in itertools.combinations(names, 2):
        offsets = [case[first] - case[second] for case in cases if first in case and second in case]
        found.append((_distance(offsets), *_agreement(offsets), f"{first} lies to the {{side}} of {second}"))
    clear = [row[1:] for row in found if row[0] >= least and row[1] >= SIDED_SHARE and row[2] < SIGNIFICANCE]
    if not clear:
        return None
    share, _, right, count, text = max(clear, key=lambda row: (row[0], row[3]))
    return f"{text.format(side='right' if right else 'left')} in {round(share * count)} of {count} cases"


def _distance(offsets: Sequence[float]) -> float:
    """The median, without its sign."""
    return abs(statistics.median(offsets)) if offsets else 0.0


def _agreement(offsets: Sequence[float]) -> tuple[float, float, bool, int]:
    """(share of the more frequent sign, two-sided p of the sign test, whether that is to the right, cases).

    >>> _agreement([1.0, 2.0, 3.0, -1.0])
    (0.75, 0.625, True, 4)
    """
    known = [offset for offset in offsets if offset]
    count = len(known)
    if not count:
        return 0.5, 1.0, True, 0
    right = sum(offset > 0 for offset in known)
    most = max(right, count - right)
    tail = sum(math.comb(count, k) for k in range(most, count + 1)) / 2**count
    return most / count, min(1.0, 2 * tail), 2 * right >= count, count
