"""What all journals of a folder say, read as far as they have grown: of each scan where its newest row stands."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.journal import FOLDER, FORM, SUFFIX
from rarevox.pipeline.cohort.rows import TABLES

OK, OTHER, GONE = 1, 2, 0
_BLOCK = 1 << 24


@dataclass
class Source:
    """A journal as far as it has been read.

    Attributes:
        path: of the file.
        header: its first line; empty until that is there.
        read: bytes read, all of whole lines.
        ended: whether it grows no more.
        torn: whole lines that are no entries.
    """

    path: Path
    header: dict[str, Any] = field(default_factory=dict)
    read: int = 0
    ended: bool = False
    torn: int = 0

    @property
    def id(self) -> str:
        """Of the call that writes it."""
        return self.path.name.removesuffix(SUFFIX)


class Ledger:
    """Where the newest row of each scan stands; some 200 bytes a scan, whatever its row holds.

    A line that is not whole (its process was killed within it) is no line; one that is no entry is counted and passed
    over. Of several rows of one scan the newest counts, by the time that its line tells.

    Args:
        folder: of the predictions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.sources: list[Source] = []
        self._seen = 0
        self._slots: dict[str, int] = {}
        self._times, self._numbers, self._places = array("d"), array("q"), array("q")
        self._source, self._lengths, self._status = array("l"), array("l"), array("b")
        self._left: list[tuple[int, int, int, int]] = []

    def refresh(self) -> None:
        """Read what the journals have grown by."""
        self._look_for_more()
        for number, source in enumerate(self.sources):
            if not source.ended:
                self._read_on(number, source)

    def header(self, owner: str) -> Mapping[str, Any]:
        """The first line of a journal; empty where there is none."""
        return next((source.header for source in self.sources if source.id == owner), {})

    def __contains__(self, case: object) -> bool:
        return case in self._slots and self._status[self._slots[str(case)]] != GONE

    def __len__(self) -> int:
        return sum(status != GONE for status in self._status)

    def cases(self) -> Iterator[str]:
        """The names of all scans that have a row."""
        return (case for case, slot in self._slots.items() if self._status[slot] != GONE)

    def is_ok(self, case: str) -> bool:
        """Whether a scan's newest row says that it was segmented."""
        return case in self._slots and self._status[self._slots[case]] == OK

    def source_of(self, case: str) -> Source:
        """The journal in which a scan's newest row stands."""
        return self.sources[self._source[self._slots[case]]]

    def number_of(self, case: str) -> int:
        """The scan's place in the list of the call that wrote its row."""
        return self._numbers[self._slots[case]]

    def row(self, case: str) -> dict[str, Any]:
        """A scan's newest row, read from its journal.

        Raises:
            OSError: the journal is there no more.
        """
        slot = self._slots[case]
        with self.sources[self._source[slot]].path.open("rb") as file:
            file.seek(self._places[slot])
            return dict(json.loads(file.read(self._lengths[slot]))["row"])

    def lines(self) -> Iterator[tuple[Source, int, dict[str, Any]]]:
        """The newest rows of all scans in the order of their numbers, then names: journal, number and row.

        Each journal is opened once; rows are read one by one.
        """
        order = sorted(self.cases(), key=lambda case: (self._numbers[self._slots[case]], case))
        files: dict[int, Any] = {}
        try:
            for case in order:
                slot = self._slots[case]
                number = self._source[slot]
                if number not in files:
                    files[number] = self.sources[number].path.open("rb")
                files[number].seek(self._places[slot])
                entry = json.loads(files[number].read(self._lengths[slot]))
                yield self.sources[number], self._numbers[slot], entry["row"]
        finally:
            for file in files.values():
                file.close()

    def left(self) -> Iterator[tuple[Source, int, dict[str, Any]]]:
        """The rows of what is no scan, in the order of their numbers; calls of one list have each of them."""
        for number, place, length, at in sorted((n, p, size, s) for s, n, p, size in self._left):
            with self.sources[at].path.open("rb") as file:
                file.seek(place)
                yield self.sources[at], number, json.loads(file.read(length))["left"]

    def _look_for_more(self) -> None:
        try:
            changed = self.folder.stat().st_mtime_ns
        except OSError:
            return
        if changed == self._seen:
            return
        self._seen = changed
        known = {source.path.name for source in self.sources}
        with os.scandir(self.folder) as entries:
            new = sorted(e.name for e in entries if e.name.endswith(SUFFIX) and e.name not in known)
        self.sources += [Source(self.folder / name) for name in new]

    def _read_on(self, number: int, source: Source) -> None:
        try:
            if source.path.stat().st_size <= source.read:
                return
            with source.path.open("rb") as file:
                self._take_lines(number, source, file)
        except OSError:  # removed meanwhile
            source.ended = True

    def _take_lines(self, number: int, source: Source, file: Any) -> None:
        file.seek(source.read)
        rest = b""
        while block := file.read(_BLOCK):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                self._take(number, source, line, source.read)
                source.read += len(line) + 1

    def _take(self, number: int, source: Source, line: bytes, place: int) -> None:
        try:
            entry = json.loads(line)
            if place == 0:
                if not (isinstance(entry, dict) and entry.get("journal") == FORM):
                    raise ValueError
                if not _is_whole(entry, _HEADER):
                    raise ValueError
                source.header = entry
            elif source.header:
                self._enter(number, entry, place, len(line))
            else:
                source.torn += 1
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
            source.torn += 1

    def _enter(self, number: int, entry: dict[str, Any], place: int, length: int) -> None:
        if "gone" in entry:
            for case in entry["gone"]:
                self._set(str(case), float(entry["t"]), 0, number, 0, 0, GONE)
        elif "left" in entry:
            _require_row(entry["left"])
            self._left.append((number, int(entry["n"]), place, length))
        else:
            row = entry["row"]
            _require_row(row)
            status = OK if row["status"] == "ok" else OTHER
            self._set(row["case"], float(entry["t"]), int(entry["n"]), number, place, length, status)

    def _set(self, case: str, t: float, n: int, source: int, place: int, length: int, status: int) -> None:
        slot = self._slots.setdefault(case, len(self._times))
        if slot == len(self._times):
            for values, value in zip(self._columns(), (t, n, place, source, length, status), strict=True):
                values.append(value)
        elif t >= self._times[slot]:
            for values, value in zip(self._columns(), (t, n, place, source, length, status), strict=True):
                values[slot] = value

    def _columns(self) -> tuple[array, ...]:
        return self._times, self._numbers, self._places, self._source, self._lengths, self._status


_HEADER: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "structures": dict,
    "composites": dict,
    "settings": list,
    "versions": dict,
}
_ROW: dict[str, type | tuple[type, ...]] = {
    "reason": str,
    "warning": str,
    "output": str,
    "files": list,
    "volume_ml": dict,
    "manifest": dict,
    TABLES: dict,
    "seconds": (int, float, type(None)),
}


def _is_whole(content: Mapping[str, Any], form: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether what later code reads of a line is of the kind that is written."""
    return all(isinstance(content[key], kind) for key, kind in form.items() if key in content)


def _require_row(row: Mapping[str, Any]) -> None:
    """Refuse a row of another form than is written.

    Raises:
        ValueError, KeyError, TypeError: it is.
    """
    named = isinstance(row["case"], str) and isinstance(row["status"], str)
    lines = list(row.get(TABLES, {}).values()) if named and _is_whole(row, _ROW) else [None]
    if not all(isinstance(one, list) and all(isinstance(line, dict) for line in one) for one in lines):
        raise ValueError
