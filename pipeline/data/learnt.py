"""Which cases a run has learnt from: known by their content, whatever dataset or split they come in later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.form import fingerprint_rows
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json, write_json

LEARNT_FROM = "logs/learnt_from.json"


def note_learnt(run: Path, data: Dataset, fold: int | str, start: Path | None = None) -> None:
    """Write ``logs/learnt_from.json``: name and hash of each case that a training of this fold learns from.

    Args:
        run: the run.
        data: its dataset.
        fold: its fold.
        start: the run whose weights it starts from; what that has learnt from is noted as ``before``.
    """
    earlier = [] if start is None else [*(noted_cases(start) or []), *_rows(start, "before")]
    before = {"before": earlier} if earlier else {}
    write_json(run / LEARNT_FROM, {"fingerprint": data.fingerprint, "cases": learnt_cases(data, fold), **before})


def learnt_cases(data: Dataset, fold: int | str) -> list[dict[str, str]]:
    """``{"case", "sha256"}`` of each case for training; the hash of its content is in the fingerprint."""
    hashes = _hashes(data)
    names = sorted(str(case["case"]) for case in data.section("train", fold=fold))
    return [{"case": name, "sha256": hashes.get(name, "")} for name in names]


def noted_cases(run: Path) -> list[dict[str, str]] | None:
    """What :func:`note_learnt` wrote of a run; None of one that an earlier version trained, or where it is damaged."""
    return _rows(run, "cases") or None


def _rows(run: Path, key: str) -> list[dict[str, str]]:
    """The rows of a list of the note; none where there is no such list, or nothing can be read."""
    try:
        content = read_json(run / LEARNT_FROM)
        rows = content.get(key) if isinstance(content, dict) else None
    except (RequestError, OSError):
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return []
    return [{"case": str(row.get("case", "")), "sha256": str(row.get("sha256", ""))} for row in rows]


def seen_cases(runs: Iterable[Path], data: Dataset, cases: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of those of ``cases`` that one of the runs has learnt from, in their order.

    A case is the same whose content is; where a dataset has no hashes, none is known to be.
    """
    noted = (row for run in runs for key in ("cases", "before") for row in _rows(run, key))
    learnt = {row["sha256"] for row in noted if row["sha256"]}
    hashes = _hashes(data) if learnt else {}
    return [str(case["case"]) for case in cases if hashes.get(str(case["case"])) in learnt]


def _hashes(data: Dataset) -> dict[str, str]:
    """The hash of each case's content, from the ``fingerprint.json`` beside a dataset."""
    rows = fingerprint_rows(data.path)
    return {str(row["case"]): str(row["sha256"]) for row in rows if row.get("case") and row.get("sha256")}
