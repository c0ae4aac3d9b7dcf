"""What an earlier call left: which maps stand, and with ``--keep`` which are still what this call would write."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.form import Kind, are_files, check_keys, is_text
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.inference.outputs.output import Output, files_of, names_of

RESULT_FILE = "predictions.json"
_MAP = "_seg.nii.gz"
_ORIGIN = ("run", "ensemble", "models", "settings")
_MODEL = ("configs/inference.yaml", "models/model.pt")


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


def earlier(folder: Path) -> dict[str, Any]:
    """What ``predictions.json`` of an earlier call says; without one, that there were no scans.

    Raises:
        RequestError: it has another form.
    """
    return read_rows(folder) if (folder / RESULT_FILE).is_file() else {"scans": []}


def standing(
    folder: Path,
    made: Mapping[str, Any],
    made_now: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    left: Sequence[Mapping[str, Any]] = (),
) -> dict[str, dict[str, Any]]:
    """The rows of an earlier call, by case, whose maps are there and stand until this call writes others.

    Args:
        folder: of the predictions.
        made: of :func:`earlier`.
        made_now: of :func:`origin`, of this call.
        items: the scans of this call.
        left: rows of what this call cannot segment.

    Raises:
        RequestError: maps of scans that this call does not name were made by other runs or with other settings, or
            nobody knows how.
    """
    rows = {row["case"]: dict(row) for row in made["scans"] if row["status"] == "ok" and _is_whole(folder, row)}
    named = {str(item["case"]) for item in (*items, *left)}
    listed = {name for row in made["scans"] for name in files_of(row)}
    own = {f"{case}{_MAP}" for case in named}
    unlisted = sorted(path.name for path in folder.glob(f"*{_MAP}") if path.name not in listed | own)
    same = all(made.get(key) == made_now.get(key) for key in _ORIGIN)
    others = unlisted if same else sorted({*unlisted, *(rows[case]["output"] for case in rows if case not in named)})
    if others:
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RequestError(
            f"{folder} holds maps that this call would not write anew, of another run, another state of it or other "
            f"settings: {some}; give another --output, or remove them"
        )
    return rows if same else {}


def superseded(
    made: Mapping[str, Any],
    made_now: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    left: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Cases whose maps of an earlier call stand for nothing from now on: made otherwise, or of what is no scan now."""
    same = all(made.get(key) == made_now.get(key) for key in _ORIGIN)
    scans = {str(item["case"]) for item in items}
    gone = {str(row["case"]) for row in left if row["status"] == "failed"} - scans
    return sorted(gone | (set() if same else {str(row["case"]) for row in made["scans"]}))


def _is_whole(folder: Path, row: Mapping[str, Any], asked: Sequence[Output] = ()) -> bool:
    """Whether the files of a row are there, those that are asked for among them."""
    named = files_of(row)
    return bool(named) and set(names_of(asked, row)) <= set(named) and all((folder / name).is_file() for name in named)


def kept_rows(
    folder: Path,
    made: Mapping[str, Any],
    asked: Sequence[Output],
    made_now: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """The rows of an earlier call, by case, whose maps are there, those asked for now among them, of the same files.

    Args:
        folder: of the predictions.
        made: of :func:`earlier`.
        asked: what is written of each scan now; a row that names none of it is not kept.
        made_now: of :func:`origin`, of this call.
        items: the scans of this call. Rows of other scans stay.

    Raises:
        RequestError: the maps are of other runs, of runs that have changed since, or of other settings.
    """
    if not made["scans"]:
        return {}
    _same_origin(folder, made, made_now)
    now = {str(item["case"]): source(item) for item in items}
    return {
        row["case"]: dict(row)
        for row in made["scans"]
        if row["status"] == "ok"
        and _is_whole(folder, row, asked)
        and (row["case"] not in now or _same_source(row, now[row["case"]]))
    }


def _same_origin(folder: Path, made: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse maps that were made otherwise."""
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
    names = all(_places(row.get(key)) == _places(now.get(key)) for key in ("image", "mask", "roi"))
    return names and row.get("state") == now["state"]


def _places(files: Any) -> list[Path]:
    return [Path(file).resolve() for file in (files if isinstance(files, list) else [files]) if file]


def _state(files: object) -> list[list[int]]:
    """Bytes and time of change (ns) of each file; of a folder the sum and the latest. Empty where one has gone."""
    found = []
    for path in _places(files):
        try:
            parts = [one.stat() for one in (path.iterdir() if path.is_dir() else [path])]
        except OSError:
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
