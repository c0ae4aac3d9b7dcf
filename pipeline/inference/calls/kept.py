"""What an earlier call left: which maps stand, and with ``--keep`` which are still what this call would write."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import STATISTICS_FILE
from rarevox.pipeline.cohort.collect import made_alike
from rarevox.pipeline.cohort.journal import FOLDER, Journal
from rarevox.pipeline.cohort.ledger import Ledger
from rarevox.pipeline.cohort.rows import RESULT_FILE, files_of, place
from rarevox.pipeline.console import console
from rarevox.pipeline.data.form import Kind, are_files, check_keys, is_text
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.inference.outputs.output import Output, names_of
from rarevox.pipeline.words import counted

_MAP = "_seg.nii.gz"
_MODEL = ("configs/inference.yaml", "models/model.pt", STATISTICS_FILE)
_BY_NAMES = ("roots",)
"""Of what calls ask for: what shows in the names of files alone."""


def origin(runs: Sequence[Path], settings: Sequence[str]) -> dict[str, Any]:
    """What ``predictions.json`` says of how its maps were made: runs, their content and the settings over them."""
    several = {"ensemble": [str(run.resolve()) for run in runs]} if len(runs) > 1 else {}
    digests = [_digest(run) for run in runs]
    return {"run": str(runs[0].resolve()), **several, "models": digests, "settings": list(settings)}


def source(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of the files that a scan was read from, so that another file or content of it is noticed.

    ``image``, and where they are given ``mask`` and ``roi``, with ``state``: bytes and time of change (ns) of each.
    """
    names = {key: item[key] for key in ("image", "mask", "roi") if key in item}
    return {**names, "state": {key: _state(files) for key, files in names.items()}}


def _is_list(value: object) -> bool:
    return isinstance(value, list)


_KEYS = {
    "scans": Kind(lambda value: _is_list(value) and all(isinstance(row, dict) for row in value), "a list of rows"),
    "run": Kind(is_text, "a folder", True),
    "ensemble": Kind(are_files, "a list of folders", True),
    "models": Kind(_is_list, "a list", True),
    "settings": Kind(lambda value: _is_list(value) and all(map(is_text, value)), "a list of texts", True),
}
_ROW = {
    "case": Kind(is_text, "a name"),
    "status": Kind(is_text, "a text"),
    **{key: Kind(are_files, "a file or a list of files", True) for key in ("image", "mask", "roi")},
    **{key: Kind(is_text, "a file", True) for key in ("output", "entropy")},
}


def read_rows(folder: Path) -> dict[str, Any]:
    """The content of an earlier call's ``predictions.json``, whose form is checked: ``scans`` are the rows.

    Raises:
        RequestError: another form; says where, what was found and what was expected.
    """
    path = folder / RESULT_FILE
    content = read_json(path)
    remedy = "remove the file, or give another --output"
    if not isinstance(content, dict):
        raise RequestError(f"{path} is not what rarevox predict wrote; {remedy}")
    try:
        check_keys(content, _KEYS, str(path))
        for number, row in enumerate(content["scans"]):
            check_keys(row, _ROW, f'"scans"[{number}] of {path}')
    except RequestError as error:
        raise RequestError(f"{error}; {remedy}") from None
    return dict(content)


def import_earlier(folder: Path) -> None:
    """Make a journal of the ``predictions.json`` of a folder that has none, as versions before journals left it.

    Raises:
        RequestError: the file has another form.
    """
    path = folder / RESULT_FILE
    if (folder / FOLDER).is_dir() or not path.is_file():
        return
    content, moment = read_rows(folder), path.stat().st_mtime
    kept = ("run", "ensemble", "models", "settings", "structures")
    header: dict[str, Any] = {key: content[key] for key in kept if key in content}
    journal = Journal(folder, {**header, "session": "earlier", "time": moment})
    for number, row in enumerate(row for row in content["scans"] if row["status"] == "ok"):
        journal.append({"n": number, "t": moment, "row": row})
    journal.close()


def refuse_strangers(
    folder: Path, ledger: Ledger, made: Mapping[str, Any], now: Mapping[str, Any], named: Collection[str]
) -> None:
    """Refuse a folder that would still hold maps made otherwise than this call's.

    Args:
        folder: of the predictions.
        ledger: the rows of earlier calls.
        made: of :func:`origin`, of the last of them.
        now: of :func:`origin`, of this call.
        named: the cases of this call.

    Raises:
        RequestError: maps of scans that this call does not name were made by other runs or with other settings, or
            nobody knows how.
    """
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries if entry.name.endswith(_MAP)}
    strange = {name for name in there if (case := name.removesuffix(_MAP)) not in named and case not in ledger}
    if strange:
        strange -= {name for case in ledger.cases() for name in files_of(ledger.row(case))}
    if not made_alike(made, now):
        rows = (ledger.row(case) for case in ledger.cases() if case not in named and ledger.is_ok(case))
        strange |= {str(row["output"]) for row in rows if _is_whole(folder, row)}
    if strange:
        others = sorted(strange)
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RequestError(
            f"{folder} holds maps that this call would not write anew, of another run, another state of it or other "
            f"settings: {some}; give another --output, or remove them"
        )


def tell_replaced(folder: Path, ledger: Ledger, made: Mapping[str, Any], named: Collection[str]) -> None:
    """Say of maps that a call without ``--keep`` writes anew that they are, and of which run they were."""
    there = sum(1 for case in ledger.cases() if case in named and ledger.is_ok(case))
    if there:
        run = " and ".join(made.get("ensemble") or [str(made.get("run", "an earlier call"))])
        which = counted(there, "label map")
        console.say("{} of {} in {} and what was written with them are replaced", which, run, folder)


def superseded(
    ledger: Ledger,
    made: Mapping[str, Any],
    now: Mapping[str, Any],
    named: Collection[str],
    left: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Cases whose maps of an earlier call stand for nothing from now on: made otherwise, or of what is no scan now."""
    if not made_alike(made, now):
        return sorted(ledger.cases())
    gone = {str(row["case"]) for row in left if row["status"] == "failed"} - set(named)
    return sorted(case for case in gone if case in ledger)


def _is_whole(folder: Path, row: Mapping[str, Any], asked: Sequence[Output] = ()) -> bool:
    """Whether the files of a row are there, those that are asked for among them."""
    named = files_of(row)
    wanted = set(names_of(asked, row)) <= set(named)
    return bool(named) and wanted and all(place(folder, name).is_file() for name in named)


def may_stand(folder: Path, row: Mapping[str, Any], asked: Sequence[Output], item: Mapping[str, Any]) -> bool:
    """Whether a row of an earlier call, of the same runs and settings, is what this call would write of a scan.

    Args:
        folder: of the predictions.
        row: of the earlier call.
        asked: what is written of each scan now.
        item: the scan.
    """
    return _is_whole(folder, row, asked) and _same_source(row, source(item))


def covers(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    """Whether what an earlier call wrote of its scans has all that is asked for now, with the same options.

    Args:
        then: what it asked for, as its journal says; None of versions that did not say, whose files tell.
        now: what is asked for.

    >>> covers({"previews": True, "atlas": None}, {"previews": False, "atlas": None})
    True
    >>> covers({"lesions": False}, {"lesions": True}), covers({"atlas": "a.nii"}, {"atlas": "b.nii"})
    (False, False)
    """
    if then is None:
        return True
    return all(not value or then.get(key) == value for key, value in now.items() if key not in _BY_NAMES)


def require_same_origin(folder: Path, made: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to keep maps that were made otherwise.

    Args:
        folder: of the predictions.
        made: of :func:`origin`, of the earlier call.
        now: of :func:`origin`, of this one.

    Raises:
        RequestError: the maps are of other runs, of runs that have changed since, or of other settings.
    """
    remedy = "give another --output, or leave --keep out to write them anew"
    if [made.get(key) for key in ("run", "ensemble")] != [now.get(key) for key in ("run", "ensemble")]:
        said = " and ".join(made.get("ensemble") or [str(made.get("run"))])
        raise RequestError(f"--keep: the label maps in {folder} are of {said}; {remedy}")
    if made.get("models") != now["models"]:
        said = " or ".join(_MODEL)
        raise RequestError(
            f"--keep: {said} of the run has changed since the label maps in {folder} were made; {remedy}"
        )
    if made.get("settings") != now["settings"]:
        then, today = (" ".join(one.get("settings", [])) or "none" for one in (made, now))
        raise RequestError(f"--keep: the label maps in {folder} were made with --set {then}, now {today}; {remedy}")


def _same_source(row: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a row is of the same files with the same content."""
    if row.get("state") != now["state"]:
        return False
    keys = ("image", "mask", "roi")
    return all(row.get(key) == now.get(key) or _places(row.get(key)) == _places(now.get(key)) for key in keys)


def _places(files: Any) -> list[Path]:
    return [Path(file).resolve() for file in (files if isinstance(files, list) else [files]) if file]


def _state(files: Any) -> list[list[int]]:
    """Bytes and time of change (ns) of each file; of a folder the sum and the latest. Empty where one has gone."""
    found = []
    for path in files if isinstance(files, list) else [files]:
        try:
            one = os.stat(path)
            parts = [one] if not stat.S_ISDIR(one.st_mode) else [file.stat() for file in Path(path).iterdir()]
        except (OSError, ValueError):
            return []
        found.append([sum(one.st_size for one in parts), max((one.st_mtime_ns for one in parts), default=0)])
    return found


def _digest(run: Path) -> str:
    """SHA-256, shortened, of what a run predicts with."""
    total = hashlib.sha256()
    for path in (run / name for name in _MODEL):
        if path.is_file():
            total.update(f"{path.stat().st_size}:".encode())
            with path.open("rb") as file:
                while part := file.read(1 << 24):
                    total.update(part)
    return total.hexdigest()[:16]
