"""Which series of a study are meant: by modality, description, orientation, number and count of slices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.names import shown
from rarevox.pipeline.words import counted

ORIENTATIONS = ("sagittal", "coronal", "axial")
"""By the axis of the patient that the slices' normal is nearest to."""
KEYS = ("modality", "description", "orientation", "number", "min-slices", "max-slices")
_PARTING = re.compile(rf",(?=(?:{'|'.join(KEYS)})=)")


@dataclass(frozen=True)
class Series:
    """A series of a study; nothing in it says whose.

    Attributes:
        files: of the series, in one folder.
        uid: of the series.
        study: UID of the study.
        modality: such as MR.
        description: SeriesDescription, which is matched and never shown: people write names into it.
        number: SeriesNumber; None where there is none.
        orientation: one of ``ORIENTATIONS``; empty where the files do not say.
        slices: files, or frames.
    """

    files: tuple[Path, ...]
    uid: str
    study: str
    modality: str = ""
    description: str = ""
    number: int | None = None
    orientation: str = ""
    slices: int = 0


@dataclass(frozen=True)
class Rule:
    """What a series must be; None asks nothing.

    >>> rule = parse_rule("modality=MR,description=flair.*(3d|sag),min-slices=20")
    >>> rule.against(Series((), "1", "2", "MR", "T2 FLAIR 3D", 4, "axial", 19))
    'it has 19 slices, fewer than 20'
    """

    modality: str | None = None
    description: re.Pattern[str] | None = None
    orientation: str | None = None
    number: int | None = None
    min_slices: int = 1
    max_slices: int | None = None

    def against(self, series: Series) -> str:
        """What speaks against a series, to follow a colon; empty where nothing does."""
        if self.modality is not None and series.modality.upper() != self.modality:
            return f"its modality is {series.modality or 'not told'}, not {self.modality}"
        if self.description is not None and not self.description.search(series.description):
            return "its description does not match"
        if self.orientation is not None and series.orientation != self.orientation:
            return f"its slices are {series.orientation or 'of no told orientation'}, not {self.orientation}"
        if self.number is not None and series.number != self.number:
            return f"its number is {series.number}, not {self.number}"
        if series.slices < self.min_slices:
            return f"it has {counted(series.slices, 'slice')}, fewer than {self.min_slices}"
        if self.max_slices is not None and series.slices > self.max_slices:
            return f"it has {counted(series.slices, 'slice')}, more than {self.max_slices}"
        return ""


def parse_rule(text: str) -> Rule:
    """A rule from ``KEY=VALUE,KEY=VALUE``; the description is a regular expression, found anywhere, in any case.

    Raises:
        RequestError: another form, an unknown key, a value that cannot be.
    """
    values: dict[str, Any] = {}
    for part in _PARTING.split(text):
        key, sign, value = part.partition("=")
        if not sign or key not in KEYS or not value:
            if sign and key not in KEYS:
                raise RequestError(f"--series {shown(text)}: no key is called {shown(key)}: {nearest(key, KEYS)}")
            which = "this" if part == text else shown(part)
            raise RequestError(f"--series {shown(text)}: {which} is not KEY=VALUE with KEY of {', '.join(KEYS)}")
        if wrong := _misspelt(key, value):
            raise RequestError(f"--series {shown(text)}: no key is called {shown(wrong)}: {nearest(wrong, KEYS)}")
        if key in values:
            raise RequestError(f"--series {shown(text)} names {key} twice")
        values[key] = _value(key, value, text)
    return Rule(**{key.replace("-", "_"): value for key, value in values.items()})


def _misspelt(key: str, value: str) -> str:
    """What follows a comma in a value and is no key: anything, but in a description only what is nearly one.

    >>> _misspelt("modality", "MR,orientatin=axial"), _misspelt("description", "t1,t2"), _misspelt("number", "3")
    ('orientatin', '', '')
    """
    after = [part.partition("=") for part in value.split(",")[1:]]
    if key != "description":
        return after[0][0] if after else ""
    return next((name for name, sign, _ in after if sign and get_close_matches(name, KEYS, n=1, cutoff=0.8)), "")


def _value(key: str, value: str, text: str) -> Any:
    if key == "modality":
        return value.upper()
    if key == "description":
        try:
            return re.compile(value, re.IGNORECASE)
        except re.error as error:
            raise RequestError(f"--series {shown(text)}: the description is no regular expression: {error}") from error
    if key == "orientation":
        if value.lower() not in ORIENTATIONS:
            raise RequestError(f"--series {shown(text)}: the orientation is one of {', '.join(ORIENTATIONS)}")
        return value.lower()
    if not re.fullmatch(r"\d{1,9}", value):
        raise RequestError(f"--series {shown(text)}: {key} is a whole number, not {shown(value)}")
    return int(value)


def orientation_of(directions: Any) -> str:
    """The name of a slice's plane by its six direction cosines.

    >>> orientation_of([1, 0, 0, 0, 1, 0]), orientation_of([0, 1, 0, 0, 0, -1]), orientation_of([1, 0, 0, 0, 0.3, -1])
    ('axial', 'sagittal', 'coronal')
    """
    row, column = np.asarray(directions, float).reshape(2, 3)
    return ORIENTATIONS[int(np.argmax(np.abs(np.cross(row, column))))]
