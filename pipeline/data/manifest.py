"""A table of scans: CSV or JSON lines, up to millions of them, each a scan or a row that says why not."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rarevox.pipeline.data.formats import stem_of_name
from rarevox.pipeline.data.scans import FAILED, Survey
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.names import case_flaw, shown
from rarevox.pipeline.words import counted

MASKS = ("mask", "roi")
CASE, IMAGE = "case", "image"
LONGEST_LINE = 1 << 20
_JSON = (".jsonl", ".ndjson", ".json")


def read_manifest(path: str | Path, channels: Sequence[str], found: Survey | None = None) -> Survey:
    """The scans that a manifest names.

    ``case`` is the scan's name (the image's, where there is none), ``image`` its file, or a column (a key) for each of
    the run's channels by name, ``mask`` and ``roi`` masks of its own. Files are relative to the manifest. Every other
    column is carried through to the scan's row as ``manifest``. A CSV table has a heading; columns are parted by tabs
    where the file is called ``.tsv``. Lines of JSON hold an object each, ``image`` may be a list.

    A line that is no JSON, lacks a file or names a case again is a row ``failed``, and the others go on.

    Args:
        path: of the manifest.
        channels: names of the network's channels.
        found: what was found elsewhere, to which this is added.

    Raises:
        RequestError: it cannot be read, or its heading names neither images nor channels.
    """
    path, found = Path(path), found or Survey()
    lines: dict[str, int | None] = {str(scan[CASE]): None for scan in found.scans}
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RequestError(f"--manifest {path} is a folder, a pipe or a device; give a file")
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            for number, content in _lines(path, handle, channels):
                scan = content if isinstance(content, str) else _scan(content, channels, path.parent)
                if not isinstance(scan, str) and scan[CASE] in lines:
                    before = lines[scan[CASE]]
                    where = "a scan that is named besides" if before is None else f"line {before}"
                    scan = f"its case {scan[CASE]} is that of {where} too; rename one of them"
                if isinstance(scan, str):
                    found.left.append(_row(path, number, content, scan))
                    continue
                lines[scan[CASE]] = number
                found.scans.append(scan)
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"--manifest {path} cannot be read: {reason}; give a CSV table or JSON lines") from error
    found.named = (*found.named, path)
    return found


def _lines(path: Path, handle: TextIO, channels: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Number and content of each line that is not empty, or why it has none."""
    if path.suffix.lower() in _JSON:
        yield from _json_lines(handle)
    else:
        yield from _table(path, handle, channels)


def _bounded(handle: TextIO) -> Iterator[str]:
    """The lines; of one that has more than `LONGEST_LINE` letters only so many and one, whatever its length."""
    while line := handle.readline(LONGEST_LINE + 1):
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith("\n"):
            rest = handle.readline(LONGEST_LINE + 1)
        yield line


def _json_lines(handle: TextIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(_bounded(handle), start=1):
        if not line.strip():
            continue
        if len(line) > LONGEST_LINE:
            yield number, f"it has more than {LONGEST_LINE} letters"
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "it is no JSON"
            continue
        yield number, content if isinstance(content, dict) else "it is no JSON object"


def _table(path: Path, handle: TextIO, channels: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(map(_cell_too_long, _bounded(handle)), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise RequestError(f"--manifest {path} has no heading that can be read: {error}") from error
    if IMAGE not in columns and not set(channels) <= set(columns):
        named = f"{IMAGE}, or a column for each channel ({', '.join(channels)})"
        told = ", ".join(columns)[:200] or "none"
        raise RequestError(f"--manifest {path} has the columns {told}; expected {named}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise RequestError(f"--manifest {path} has several columns {', '.join(twice)}; name each once")
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"it is no line of a table: {error}"
            continue
        if not cells:
            continue
        if len(cells) > len(columns):
            yield reader.line_num, f"it has {counted(len(cells), 'cell')} where there are {len(columns)} columns"
            continue
        yield reader.line_num, dict(zip(columns, cells, strict=False))


def _cell_too_long(line: str) -> str:
    """A line as it is; in place of the beginning of a longer one a cell that no table has."""
    return line if len(line) <= LONGEST_LINE else "x" * (csv.field_size_limit() + 1) + "\n"


def _scan(content: Mapping[str, Any], channels: Sequence[str], folder: Path) -> dict[str, Any] | str:
    """The entry of a data list, or why there is none."""
    whole = content.get(IMAGE)
    images = [content.get(name) for name in channels] if not whole else whole if isinstance(whole, list) else [whole]
    if not all(isinstance(image, str) and image and "\0" not in image for image in images):
        missing = [name for name in channels if not content.get(name)] or [IMAGE]
        return f"it names no file as {IMAGE}" + (f", nor as {', '.join(missing)}" if missing != [IMAGE] else "")
    files = [_place(folder, str(image)) for image in images]
    case = content.get(CASE) or stem_of_name(os.path.basename(files[0].rstrip("/")))
    fault = case_flaw(case) if content.get(CASE) else ""
    if fault or not case:
        return f"its case {shown(case)} {fault or 'is empty'}"
    scan: dict[str, Any] = {CASE: case, IMAGE: files if len(files) > 1 else files[0]}
    for key in MASKS:
        if isinstance(content.get(key), str) and content[key]:
            scan[key] = _place(folder, content[key])
    taken = {CASE, IMAGE, *MASKS, *(() if whole else channels)}
    carried = {key: value for key, value in content.items() if key not in taken}
    return scan | ({"manifest": carried} if carried else {})


def _place(folder: Path, name: str) -> str:
    return name if os.path.isabs(name) else os.path.normpath(os.path.join(folder, name))


def _row(path: Path, number: int, content: Mapping[str, Any] | str, reason: str) -> dict[str, Any]:
    told = content if isinstance(content, dict) else {}
    case = told.get(CASE) if isinstance(told.get(CASE), str) and told.get(CASE) else f"line {number}"
    image = told.get(IMAGE) if isinstance(told.get(IMAGE), (str, list)) else ""
    return {"case": case, "image": image, "status": FAILED, "reason": f"line {number} of {path}: {reason}"}
