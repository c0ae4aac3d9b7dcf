"""``predictions.json``, tables and a summary of a cohort, made of its journals; at any time, while others write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from rarevox.pipeline.cohort.journal import FOLDER
from rarevox.pipeline.cohort.ledger import Ledger, Source
from rarevox.pipeline.cohort.rows import (
    RESULT_FILE,
    SUMMARY_FILE,
    TABLE_FILE,
    TABLE_NAMES,
    TABLES,
    files_of,
    place,
    without_files,
)
from rarevox.pipeline.cohort.statistics import Statistics
from rarevox.pipeline.cohort.summary import write_summary
from rarevox.pipeline.cohort.tally import Tally
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import atomic, json_line
from rarevox.pipeline.locks import held
from rarevox.pipeline.words import csv_writer

_MADE = ("run", "ensemble", "models", "settings")
_COLUMNS = ("case", "status", "reason", "warning", "seconds", "output", "image")

Row = dict[str, Any]


def collect(output: str | Path) -> int:
    """Write ``predictions.json``, ``predictions.csv``, tables and ``summary.html`` of what the journals say.

    Calls at work go on meanwhile; what they have done by now is in the files.

    Args:
        output: the folder that ``rarevox predict`` writes into.

    Returns:
        0, or 1 where scans failed.

    Raises:
        RequestError: it holds no journal, or another call collects.
    """
    folder = Path(output)
    if not (folder / FOLDER).is_dir():
        raise RequestError(f"{folder} holds no folder {FOLDER} of rarevox predict; give the --output of such a call")
    return write_results(folder).tell(folder)


def write_results(
    folder: Path, ledger: Ledger | None = None, *, counts: Callable[[str], bool] = lambda case: True, call: str = ""
) -> Tally:
    """Write all files that are made of the journals.

    Args:
        folder: of the predictions.
        ledger: of its journals; it is read on.
        counts: of a case: whether it is in the tally.
        call: whose own scans are told apart in the tally; see :class:`rarevox.pipeline.cohort.journal.Journal`.

    Raises:
        RequestError: no call has written a journal here.
        OSError: a file cannot be written.
    """
    ledger = Ledger(folder) if ledger is None else ledger
    with held(folder, patience=200.0):
        ledger.refresh()
        newest = newest_header(ledger)
        if not newest:
            raise RequestError(f"no journal in {folder / FOLDER} is one of rarevox predict; predict first")
        tally, statistics = Tally(), Statistics(newest.get("structures", {}), newest.get("composites", {}))
        with ExitStack() as stack:
            listed = _Listing(stack.enter_context(_opened(folder / RESULT_FILE)), newest)
            table = _Table(stack.enter_context(_opened(folder / TABLE_FILE)), statistics.structures)
            columns: dict[str, dict[str, None]] = {}
            for row, source in _rows(folder, ledger, newest, columns_of_tables=columns):
                listed.add(row)
                table.add(row)
                statistics.add(row)
                if source is None or counts(row["case"]):
                    tally.add(row, _whose(source, newest, call))
            listed.end()
            table.end()
        for name, keys in columns.items():
            _write_lines(folder, name, keys, (row for row, _ in _rows(folder, ledger, newest)))
        for name in {*TABLE_NAMES} - {*columns}:  # of an earlier call whose rows no longer stand
            (folder / f"{name}.csv").unlink(missing_ok=True)
        tables = [f"{name}.csv" for name in sorted(columns) if name in TABLE_NAMES]
        write_summary(folder / SUMMARY_FILE, folder, statistics, newest, ledger.row, [TABLE_FILE, *tables])
    tally.files += tables
    return tally


def newest_header(ledger: Ledger) -> Mapping[str, Any]:
    """The first line of the journal that was begun last; empty where there is none."""
    headers = [source.header for source in ledger.sources if source.header]
    return max(headers, key=lambda header: _number(header.get("time")), default={})


def made_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two calls' maps are of the same runs and settings."""
    return all(one.get(key) == other.get(key) for key in _MADE)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _rows(
    folder: Path, ledger: Ledger, newest: Mapping[str, Any], columns_of_tables: dict[str, dict[str, None]] | None = None
) -> Iterator[tuple[Row, Source | None]]:
    """The rows that stand with their journals, those of scans in the order of the list, then what is no scan (None)."""
    names = _names_in(folder)
    for source, _, row in ledger.lines():
        whole = _counted(source, row, newest) and _with_its_files(folder, names, source, row, newest)
        if not whole:
            continue
        if columns_of_tables is not None:
            _note_columns(whole, columns_of_tables)
        yield whole, source
    told: set[str] = set()
    for source, _, row in ledger.left():
        key = json.dumps([row.get("case"), row.get("image"), row.get("reason")], default=str)
        if _one_cohort(source.header, newest) and key not in told:
            told.add(key)
            yield row, None


def _whose(source: Source | None, newest: Mapping[str, Any], call: str) -> str:
    """Whose work a row is, seen from a call; empty without one."""
    if source is None or not call:
        return ""
    if source.id == call:
        return "this"
    return "beside" if source.header.get("session") == newest.get("session") else "earlier"


def _counted(source: Source, row: Row, newest: Mapping[str, Any]) -> bool:
    """Whether a row stands: ok ones of the same runs and settings, others of calls with the same list of scans."""
    return _one_cohort(source.header, newest) if row["status"] != "ok" else made_alike(source.header, newest)


def _one_cohort(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two calls had the same list of scans, runs and settings, whatever their share of it."""
    return made_alike(one, other) and one.get("plan") == other.get("plan")


def _with_its_files(folder: Path, names: set[str], source: Source, row: Row, newest: Mapping[str, Any]) -> Row | None:
    """The row, as a failed one where its maps have gone in this session; None where they went after an earlier one."""
    if row["status"] != "ok":
        return row
    gone = [name for name in files_of(row) if name not in names and not place(folder, name).is_file()]
    if not gone:
        return row
    if source.header.get("session") != newest.get("session"):
        return None
    reason = f"{', '.join(gone)} is not in {folder} any more: the folder was moved or emptied meanwhile"
    return without_files(row, reason)


def _names_in(folder: Path) -> set[str]:
    """The files directly in a folder: one listing instead of a question for each of a million maps."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place when all of it is written: closed first, since the last bytes may not fit."""
    with (
        atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        yield handle


class _Listing:
    """``predictions.json``: how the maps were made, and a line for each row."""

    def __init__(self, handle: TextIO, header: Mapping[str, Any]) -> None:
        self.handle, self.header = handle, header
        made = {key: header[key] for key in _MADE if key in header}
        first = json.dumps({**made, "structures": header.get("structures", {})}, ensure_ascii=False, indent=1)
        handle.write(f'{first[:-2]},\n "scans": [')
        self._between = "\n  "

    def add(self, row: Row) -> None:
        """Write a row."""
        self.handle.write(self._between + json_line(row))
        self._between = ",\n  "

    def end(self) -> None:
        """Write what follows the rows."""
        versions = json.dumps(self.header.get("versions", {}), ensure_ascii=False)
        self.handle.write(f'\n ],\n "versions": {versions}\n}}\n')


class _Table:
    """``predictions.csv``: a line for each row, volumes in columns of their own, then what a manifest carried."""

    def __init__(self, handle: TextIO, structures: Sequence[str]) -> None:
        self._write = csv_writer(handle)
        self.structures, self.carried = list(structures), list[str]()
        self._begun = False

    def add(self, row: Row) -> None:
        """Write a row; the first one that a manifest carried something for says which columns there are."""
        if not self._begun:
            self._begin(list(row.get("manifest", {})))
        volume, carried = row.get("volume_ml", {}), row.get("manifest", {})
        image = row.get("image")
        plain = {**row, "image": " ".join(map(str, image)) if isinstance(image, list) else image}
        values = [plain.get(name) for name in _COLUMNS] + [volume.get(name) for name in self.structures]
        self._write(values + [carried.get(name) for name in self.carried])

    def end(self) -> None:
        """Name the columns of a table without rows too."""
        if not self._begun:
            self._begin([])

    def _begin(self, carried: list[str]) -> None:
        self.carried, self._begun = carried, True
        self._write([*_COLUMNS, *(f"{name} (ml)" for name in self.structures), *carried])


def _note_columns(row: Row, columns: dict[str, dict[str, None]]) -> None:
    tables = row.get(TABLES)
    for name, lines in tables.items() if isinstance(tables, dict) else ():
        keys = columns.setdefault(str(name), {})
        for line in lines:
            keys.update(dict.fromkeys(line))


def _write_lines(folder: Path, name: str, keys: Mapping[str, None], rows: Iterator[Row]) -> None:
    """A table of the whole cohort."""
    safe = "".join(sign if sign.isalnum() or sign in "_-" else "_" for sign in name)
    with _opened(folder / f"{safe}.csv") as handle:
        write = csv_writer(handle)
        write(("case", *keys))
        for row in rows:
            for line in (row.get(TABLES) or {}).get(name, ()):
                write((row["case"], *(line.get(key) for key in keys)))
