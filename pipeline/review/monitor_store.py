"""The history of reviewed cases: one SQLite file, every change of it a transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.review.monitor_read import Reviewed

APPLICATION = 0x52564D4E
"""Stands in the header of the file (``PRAGMA application_id``) and tells a history from any other SQLite database."""
VERSION = 1
WAIT_S = 30.0
"""How long to wait for another process that is writing."""

_SCHEMA = (
    """CREATE TABLE reviews (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        date TEXT NOT NULL,
        site TEXT NOT NULL,
        scanner TEXT NOT NULL,
        source TEXT NOT NULL,
        empty_rule TEXT NOT NULL)""",
    """CREATE TABLE figures (
        review INTEGER NOT NULL REFERENCES reviews (id) ON DELETE CASCADE,
        structure TEXT NOT NULL,
        dice REAL,
        status TEXT NOT NULL,
        PRIMARY KEY (review, structure))""",
    "CREATE INDEX reviews_in_time ON reviews (date, id)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)


@dataclass(frozen=True)
class Figure:
    """The Dice of one structure of one reviewed case; None where it is not defined."""

    case: str
    date: str
    site: str
    scanner: str
    structure: str
    dice: float | None
    status: str
    digest: str


@dataclass(frozen=True)
class Added:
    """What came of adding cases.

    Attributes:
        new: names of those that are in the history now.
        known: how many were there already, by content.
        elsewhere: names of those that were there already under another date, site or scanner than was given.
        again: names among ``new`` that the history also holds with other figures.
    """

    new: tuple[str, ...]
    known: int
    elsewhere: tuple[str, ...]
    again: tuple[str, ...]


def add_cases(path: str | Path, cases: Sequence[Reviewed], empty_rule: str, source: str) -> Added:
    """Add reviewed cases to a history, all of them or, if anything fails, none; makes the file if there is none.

    A case whose content (name, figures, counts) is in the history already is not added again.

    Raises:
        RequestError: the file is no history, damaged, locked or not writable, or holds Dice by another empty rule.
    """
    with _open(Path(path), write=True) as base:
        rules = {row[0] for row in base.execute("SELECT DISTINCT empty_rule FROM reviews")} - {empty_rule}
        if rules:
            raise RequestError(
                f"{source} gives Dice by the empty rule {empty_rule!r} and {path} holds Dice by {rules.pop()!r}, which "
                "cannot stand in one chart; score the cases by the same rule or begin another history"
            )
        new, known, elsewhere, again = [], 0, [], []
        for case in cases:
            digest = content_digest(case)
            held = base.execute("SELECT date, site, scanner FROM reviews WHERE digest = ?", (digest,)).fetchone()
            if held is not None:
                known += 1
                given = (case.date if case.dated else held[0], case.site or held[1], case.scanner or held[2])
                if given != tuple(held):
                    elsewhere.append(case.name)
                continue
            if base.execute("SELECT 1 FROM reviews WHERE name = ? AND site = ?", (case.name, case.site)).fetchone():
                again.append(case.name)
            _insert(base, case, digest, empty_rule, source)
            new.append(case.name)
        return Added(tuple(new), known, tuple(elsewhere), tuple(again))


def read_history(path: str | Path, since: str = "") -> tuple[list[Figure], str]:
    """Every figure, by date and then in the order in which the cases were added.

    Args:
        path: the history.
        since: leave out cases before this date (ISO).

    Returns:
        The figures, and the empty rule that they follow.

    Raises:
        RequestError: the file does not exist, is no history, damaged or locked.
    """
    path = Path(path)
    if not path.exists():
        raise RequestError(f"{path} does not exist; begin a history with: rarevox monitor {path} --add FOLDER")
    query = (
        "SELECT name, date, site, scanner, structure, dice, status, digest FROM reviews JOIN figures ON review = id "
        "WHERE date >= ? ORDER BY date, id, figures.rowid"
    )
    with _open(path, write=False) as base:
        rule = base.execute("SELECT empty_rule FROM reviews LIMIT 1").fetchone()
        return [Figure(*row) for row in base.execute(query, (since,))], rule[0] if rule else ""


def content_digest(case: Reviewed) -> str:
    """What makes a reviewed case the same as another: its name and the rows of its figures, not where it lay or when.

    A failed case whose reference is not known has no figures of its own: there the site counts as well.
    """
    site = "" if any(row["reference_ml"] for row in case.content) else case.site
    content = json.dumps([case.name, site, [sorted(row.items()) for row in case.content]], allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


@contextmanager
def _open(path: Path, *, write: bool) -> Iterator[sqlite3.Connection]:
    """A checked connection in a transaction, which is kept if the block ends well and undone if not."""
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give the file of a history, such as {path / 'history.db'}")
    if path.exists() and not path.is_file():  # SQLite would wait for a pipe's other end
        raise RequestError(f"{path} is a pipe or a device; give the file of a history")
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        uri = f"{path.resolve().as_uri()}?mode={'rwc' if write else 'ro'}"
        with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)) as base:
            base.execute("PRAGMA foreign_keys = ON")
            base.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                _check(base, path, write=write)
                yield base
            except BaseException:
                if base.in_transaction:
                    base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")
    except sqlite3.Error as error:
        raise RequestError(_explain(error, path)) from error


def _check(base: sqlite3.Connection, path: Path, *, write: bool) -> None:
    """Make the tables of a new file; refuse a file that is something else, newer than this version, or damaged."""
    (application,), (version,) = (
        base.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    tables = base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables and application == 0 and write:
        for statement in _SCHEMA:
            base.execute(statement)
        return
    if not tables and application == 0:
        raise RequestError(f"{path} is empty; begin a history with: rarevox monitor {path} --add FOLDER")
    if application != APPLICATION:
        raise RequestError(
            f"{path} is a database of something else, not a history of rarevox monitor; give another file"
        )
    if version != VERSION:
        raise RequestError(
            f"{path} has the format {version} and this rarevox knows {VERSION}; use the rarevox that wrote it"
        )
    found = base.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise RequestError(f"{path} is damaged ({' '.join(found.split())}); restore it from a copy")


def _insert(base: sqlite3.Connection, case: Reviewed, digest: str, empty_rule: str, source: str) -> None:
    row = (digest, case.name, case.date, case.site, case.scanner, source, empty_rule)
    names = "digest, name, date, site, scanner, source, empty_rule"
    review = base.execute(f"INSERT INTO reviews ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row).lastrowid
    figures: list[tuple[Any, ...]] = [(review, name, dice, status) for name, dice, status in case.figures]
    base.executemany("INSERT INTO figures (review, structure, dice, status) VALUES (?, ?, ?, ?)", figures)


def _explain(error: sqlite3.Error, path: Path) -> str:
    """What an error of SQLite means for its user."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return f"{path} has been in use by another process for {WAIT_S:g} s; try again when it is done"
    if "not a database" in text:
        return f"{path} is not a history of rarevox monitor (no SQLite file); give another file"
    if "malformed" in text or "corrupt" in text or "disk I/O" in text:
        return f"{path} is damaged ({text}); restore it from a copy"
    if "readonly" in text or "unable to open" in text:
        return f"{path} cannot be opened for this ({text}); correct the permission or choose another place"
    return f"{path} cannot be used ({text})"
