"""What a cohort's rows say together: counts, reasons, distributions of volumes, scans unlike the others."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_REASONS, MOST_NAMED = 1000, 8
MOST_PICTURED = 24
"""The first scans with a preview, which the page shows; it links those of others that it names."""
LEAST_SCANS = 10
"""Fewer scans have no outliers: their spread is not known."""
FAR = 3.5
"""Robust standard deviations from the median; Iglewicz and Hoaglin (1993)."""


@dataclass(frozen=True)
class Volumes:
    """The volumes of one structure over the cohort, in millilitres.

    Attributes:
        name: of the structure.
        n: scans.
        absent: of them with none of it.
        quantiles: 0, 5, 25, 50, 75, 95 and 100 %.
        edges: of the histogram's bins.
        counts: of the bins.
    """

    name: str
    n: int
    absent: int
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Outlier:
    """A scan whose volume of a structure is far from the cohort's.

    Attributes:
        case: its name.
        structure: which one.
        volume_ml: its volume.
        z: robust standard deviations from the median; see :func:`robust_z`.
    """

    case: str
    structure: str
    volume_ml: float
    z: float


@dataclass
class Kind:
    """What several scans' rows say alike.

    Attributes:
        first: the words of the first of them.
        cases: names of the first :data:`MOST_NAMED`.
        n: how many.
    """

    first: str
    cases: list[str]
    n: int = 0


class Reasons:
    """Texts of rows by their kind; see :func:`kind_of_reason`. Kinds beyond :data:`MOST_REASONS` are ``others``."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}

    def add(self, reason: str, case: str) -> None:
        """Take one."""
        name = kind_of_reason(reason, case)
        if name not in self.kinds and len(self.kinds) >= MOST_REASONS:
            name = "others"
        kind = self.kinds.setdefault(name, Kind(reason, []))
        kind.n += 1
        if len(kind.cases) < MOST_NAMED:
            kind.cases.append(case)

    def most_common(self, most: int) -> list[tuple[str, Kind]]:
        """The kinds of most scans first, each as the words that stand for it: its own where one scan has it."""
        found = sorted(self.kinds.items(), key=lambda one: -one[1].n)[:most]
        return [(kind.first if kind.n == 1 else name, kind) for name, kind in found]


class Statistics:
    """Gathers the rows one by one; keeps a number for each scan and structure.

    Args:
        structures: name to label value.
        composites: unions of them.

    Attributes:
        previews: how many scans have one.
        pictured: names of the first :data:`MOST_PICTURED` of them.
    """

    def __init__(self, structures: Mapping[str, Any], composites: Mapping[str, Any]) -> None:
        self.structures = [*structures, *composites]
        self.statuses: Counter[str] = Counter()
        self.reasons, self.warnings = Reasons(), Reasons()
        self.previews = 0
        self.pictured: list[str] = []
        self.seconds = array("d")
        self._cases: list[str] = []
        self._volumes = {name: array("d") for name in self.structures}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row."""
        self.statuses[str(row["status"])] += 1
        if row.get("warning"):
            self.warnings.add(str(row["warning"]), str(row["case"]))
        if row["status"] != "ok":
            if row["status"] == "failed":
                self.reasons.add(str(row.get("reason", "")), str(row["case"]))
            return
        self.previews += bool(row.get("preview"))
        if row.get("preview") and len(self.pictured) < MOST_PICTURED:
            self.pictured.append(str(row["case"]))
        self.seconds.append(_number(row.get("seconds")))
        self._cases.append(str(row["case"]))
        volume = row.get("volume_ml")
        for name, values in self._volumes.items():
            values.append(_number(volume.get(name) if isinstance(volume, dict) else None))

    def volumes(self) -> list[Volumes]:
        """The distribution of each structure's volumes."""
        return [distribution(name, values) for name, values in self._volumes.items()]

    @property
    def are_enough(self) -> bool:
        """Whether there are scans enough for some to be unlike the others."""
        return any(np.isfinite(values).sum() >= LEAST_SCANS for values in self._volumes.values())

    def outliers(self, most: int) -> list[Outlier]:
        """The scans farthest from the cohort, each with the structure in which it is, farthest first."""
        found: dict[int, Outlier] = {}
        for name, values in self._volumes.items():
            z = robust_z(np.asarray(values))
            for at in np.argsort(-np.abs(z), kind="stable")[: 4 * most].tolist():
                if abs(z[at]) > FAR and (at not in found or abs(found[at].z) < abs(z[at])):
                    found[at] = Outlier(self._cases[at], name, values[at], float(z[at]))
        return sorted(found.values(), key=lambda one: -abs(one.z))[:most]


def robust_z(volumes_ml: np.ndarray) -> np.ndarray:
    """How far each volume is from the others': (s − median s) / (1.4826 · median |s − median s|), s = v^(1/3).

    The cube root, a length, makes the few large volumes of a skewed distribution less of an exception. Where the
    median deviation is 0 or there are fewer than ten scans, all are 0; unknown volumes (NaN) are 0 too.

    >>> robust_z(np.array([1.0] * 9 + [8.0])).tolist() == [0.0] * 10
    True
    >>> robust_z(np.array([1, 8, 27, 64, 125, 216, 343, 512, 729, 64000.0])).round(2).tolist()[-1]
    9.31
    """
    known = np.isfinite(volumes_ml)
    z = np.zeros(len(volumes_ml))
    if known.sum() < LEAST_SCANS:
        return z
    lengths = np.cbrt(volumes_ml[known])
    deviation = lengths - np.median(lengths)
    spread = 1.4826 * float(np.median(np.abs(deviation)))
    if spread > 0:
        z[known] = deviation / spread
    return z


def distribution(name: str, volumes_ml: Sequence[float], bins: int = 24) -> Volumes:
    """Quantiles and histogram of one structure's volumes."""
    values = np.asarray(volumes_ml, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return Volumes(name, 0, 0, (), (), ())
    quantiles = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    counts, edges = np.histogram(values, bins=bins)
    absent = int((values == 0).sum())
    return Volumes(name, values.size, absent, tuple(quantiles), tuple(edges), tuple(int(n) for n in counts))


def kind_of_reason(reason: str, case: str) -> str:
    """A reason without what differs from scan to scan: names, paths and numbers.

    >>> kind_of_reason("/data/a 1.nii.gz is truncated: 17 bytes", "a 1"), kind_of_reason("b has 3 axes", "b")
    ('… is truncated: # bytes', '… has # axes')
    """
    text = re.sub(
        r"/(?:[^/:,;]*/)*[^/:,;]*?(?=\s(?:is|has|holds|does|cannot|may|declares|takes|and)\b|[:,;]|$)", "…", reason
    )
    if case:
        text = re.sub(rf"(?<!\w){re.escape(case)}(?!\w)", "…", text)
    return re.sub(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", "#", text)[:200]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
