"""What the entries of a scan's row mean to whoever keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

RESULT_FILE, TABLE_FILE, SUMMARY_FILE = "predictions.json", "predictions.csv", "summary.html"
"""What is made of the rows, in the folder of the predictions."""
FILES = "files"
"""Names of files besides those of :data:`NAMED`: a list, relative to the folder, ``/`` between folders."""
TABLES = "tables"
"""A scan's lines of tables of the whole cohort, by the table's name: lists of plain dicts.
``{"tables": {"lesions": [{"structure": …}, …]}}`` becomes ``lesions.csv``, with the column ``case`` before the rest."""
TABLE_NAMES = ("lesions", "structures")
"""Of the tables that calls may ask for."""
NAMED = ("output", "entropy", "probabilities")
"""Entries whose values are names of files: one, or several by structure."""


def files_of(row: Mapping[str, Any]) -> list[str]:
    """The files that a row names, relative to the folder.

    >>> files_of({"output": "a_seg.nii.gz", "probabilities": {"x": "a_prob_x.nii.gz"}, "files": ["a.png"]})
    ['a_seg.nii.gz', 'a_prob_x.nii.gz', 'a.png']
    """
    found: list[str] = []
    for key in (*NAMED, FILES):
        value = row.get(key)
        if not value:
            continue
        several = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        found += [str(name) for name in several if name]
    return found


def place(folder: Path, name: str) -> Path:
    """Where a file that a row names lies: in the folder or below it, whatever the row says.

    >>> place(Path("out"), "sub-1/anat/a.nii.gz").as_posix(), place(Path("out"), "../../a.nii.gz").as_posix()
    ('out/sub-1/anat/a.nii.gz', 'out/a.nii.gz')
    """
    path = PurePosixPath(name)
    return folder / (path.name if path.is_absolute() or ".." in path.parts else path)


def without_files(row: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """A row as a failed one: without the files, tables and volumes of what was written."""
    gone = {*NAMED, FILES, TABLES, "volume_ml"}
    return {key: value for key, value in row.items() if key not in gone} | {"status": "failed", "reason": reason}
