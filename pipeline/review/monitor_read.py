"""Reviewed cases as they come: the rows of an evaluation or score folder, with date, site and scanner."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import EMPTY_RULES
from rarevox.pipeline.files import read_json
from rarevox.pipeline.plain_data import LARGEST_JSON, read_text
from rarevox.pipeline.words import csv_rows

_CONTENT = ("structure", "status", "dice", "tp", "fp", "fn", "reference_ml")
"""The columns that make a reviewed case the same as another of its name."""
FILES = ("metrics.json", "cases.csv")
"""Of a result."""
_CONTEXT = ("date", "site", "scanner")


@dataclass(frozen=True)
class Reviewed:
    """One reviewed case.

    Attributes:
        name: the case.
        date: ISO, UTC where it has a time.
        site, scanner: empty where they are not stated.
        dated: whether the date was given (else it is the day of adding).
        figures: (structure, Dice or None, status) of each structure.
        content: what tells it from another review of the same case.
    """

    name: str
    date: str
    site: str
    scanner: str
    dated: bool
    figures: tuple[tuple[str, float | None, str], ...]
    content: tuple[Mapping[str, Any], ...]


def read_reviewed(
    folder: str | Path, *, day: str | None = None, site: str = "", scanner: str = ""
) -> tuple[list[Reviewed], str]:
    """The cases of a folder of ``rarevox evaluate`` or ``rarevox score``, in the order of its ``cases.csv``.

    The columns ``date``, ``site`` and ``scanner`` of ``cases.csv``, where somebody has added them, hold for their case
    and go before what is given here.

    Args:
        folder: holds ``metrics.json`` and ``cases.csv``.
        day: ISO date, or date and time; None is today (UTC).
        site: where the cases come from.
        scanner: what they were made with.

    Returns:
        The cases and the empty rule that their Dice follows.

    Raises:
        RequestError: no such files, a row that is not understood, or a date that is not ISO.
    """
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise RequestError(
                f"{folder} has no {name}; give the folder that `rarevox evaluate` (RUN/evaluation/SECTION) or "
                "`rarevox score --output` wrote"
            )
    content = read_json(folder / "metrics.json")
    conventions = content.get("conventions") if isinstance(content, Mapping) else None
    rule = conventions.get("empty") if isinstance(conventions, Mapping) else None
    if rule not in EMPTY_RULES:
        raise RequestError(f"{folder / 'metrics.json'} does not state the empty rule; evaluate or score anew")
    given = {"date": iso_date(day, "--date") if day else "", "site": site, "scanner": scanner}
    return _cases(folder / "cases.csv", given), str(rule)


def results_below(folder: str | Path) -> list[Path]:
    """Folders in a folder, at any depth, that hold a result of their own."""
    found = [Path(place) for place, _, names in os.walk(folder) if set(FILES) <= set(names)]
    return sorted(place for place in found if place != Path(folder))


def iso_date(text: str, source: str) -> str:
    """An ISO date as it is; a date and time as UTC, to the second (without a zone it is taken to be UTC).

    Raises:
        RequestError: it is neither.

    >>> iso_date("2026-11-21", "--date"), iso_date("2026-11-21T09:30:00+01:00", "--date")
    ('2026-11-21', '2026-11-21T08:30:00Z')
    """
    try:
        if len(text) <= 10:
            return date.fromisoformat(text).isoformat()
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise RequestError(f"{source} {text!r} is not an ISO date; write 2026-11-21 or 2026-11-21T09:30:00Z") from None
    moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cases(path: Path, given: Mapping[str, str]) -> list[Reviewed]:
    """The rows of a ``cases.csv``, case by case."""
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        for number, row in csv_rows(io.StringIO(read_text(path, LARGEST_JSON), newline="")):
            missing = {"case", "structure", "dice", "status"} - set(row)
            if missing:
                raise RequestError(f"{path} has no column {', '.join(sorted(missing))}; evaluate or score anew")
            where = f"line {number} of {path}"
            rows.setdefault(str(row["case"]), []).append({**row, "dice": _dice(row["dice"], where), "where": where})
    except csv.Error as error:
        raise RequestError(f"{path} is not a table of cases ({error}); evaluate or score anew") from error
    if not rows:
        raise RequestError(f"{path} holds no case; evaluate or score anew")
    return [_reviewed(name, case, given) for name, case in rows.items()]


def _reviewed(name: str, rows: list[dict[str, Any]], given: Mapping[str, str]) -> Reviewed:
    first = rows[0]
    context = {key: (first.get(key) or "").strip() or given[key] for key in _CONTEXT}
    structures = [row["structure"] for row in rows]
    if len(set(structures)) < len(structures) or not all(structures) or not name:
        raise RequestError(f"{first['where']}: case {name!r} has a structure twice or without a name; score it anew")
    day = iso_date(context["date"], f"{first['where']}: the date") if context["date"] else ""
    return Reviewed(
        name=name,
        date=day or datetime.now(timezone.utc).date().isoformat(),
        site=context["site"],
        scanner=context["scanner"],
        dated=bool(day),
        figures=tuple((row["structure"], row["dice"], row["status"]) for row in rows),
        content=tuple({key: "" if row.get(key) is None else row[key] for key in _CONTENT} for row in rows),
    )


def _dice(text: str | None, where: str) -> float | None:
    """A figure between 0 and 1; None where the field is empty."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise RequestError(f"{where}: the Dice is {text!r}; expected a number from 0 to 1, or nothing")
    return value
