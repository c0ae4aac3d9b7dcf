"""What became of a cohort's scans, for the console and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.rows import RESULT_FILE, SUMMARY_FILE, TABLE_FILE
from rarevox.pipeline.console import console
from rarevox.pipeline.words import counted

SHOWN = 50
"""Rows that the console shows of those that failed; all of them are in the table."""
_KINDS = {
    "output": "label maps",
    "entropy": "maps of entropy",
    "probabilities": "maps of probabilities",
    "dicom": "DICOM objects",
    "preview": "previews",
}
"""Entries of a row, and what the files that they tell of are."""

Row = Mapping[str, Any]


@dataclass
class Tally:
    """What became of the scans that count.

    Attributes:
        by_status: how many rows have which status.
        failed: those that are shown, as many as :data:`SHOWN`.
        warned: rows with a warning, as many.
        rows: how many.
        segmented: how many were segmented by ``this`` call, by ones ``beside`` it, by ``earlier`` ones; empty where no
            call asks.
        kinds: of files that the rows name.
        files: of the whole cohort.
    """

    by_status: dict[str, int] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    warned: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    segmented: dict[str, int] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=lambda: [RESULT_FILE, TABLE_FILE, SUMMARY_FILE])

    def add(self, row: Row, whose: str = "") -> None:
        """Count a row.

        Args:
            row: of a scan, or of what is none.
            whose: the call that it is of; see :attr:`segmented`.
        """
        self.kinds.update(key for key in _KINDS if isinstance(row.get(key), dict if key == "dicom" else (str, dict)))
        if row["status"] == "ok" and whose:
            self.segmented[whose] = self.segmented.get(whose, 0) + 1
        self.rows += 1
        self.by_status[row["status"]] = self.by_status.get(row["status"], 0) + 1
        shown = {key: row[key] for key in ("case", "status", "reason", "warning") if key in row}
        if row["status"] != "ok" and len(self.failed) < SHOWN:
            self.failed.append(shown)
        if "warning" in row and len(self.warned) < SHOWN:
            self.warned.append(shown)

    def tell(self, folder: Path) -> int:
        """Say what failed, how many scans were segmented and what is in the folder; the exit status."""
        for row in self.warned:
            console.say("[yellow]warning[/] {}: {}", row["case"], row["warning"])
        for row in self.failed:
            console.say("[red]{}[/] {}: {}", row["status"], row["case"], row.get("reason", ""))
        done, ignored = self.by_status.get("ok", 0), self.by_status.get("ignored", 0)
        others = self.rows - done - len(self.failed)
        if others > 0:
            console.print(f"and {others} more, listed in {TABLE_FILE}")
        besides = f" (besides, {counted(ignored, 'entry is no scan', 'entries are no scans')})"
        *first, last = [*(said for key, said in _KINDS.items() if key in self.kinds), *self.files]
        scans, files = f"{done} of {counted(self.rows - ignored, 'scan')} segmented", f"{', '.join(first)} and {last}"
        console.print(f"{scans}{self._by_whom()}{besides if ignored else ''}; {files} are in {folder}")
        return 0 if done == self.rows else 1

    def _by_whom(self) -> str:
        """How many were segmented now, where not all were."""
        if not {*self.segmented} - {"this"}:
            return ""
        named = {"this": "by this call", "beside": "by calls beside it", "earlier": "by earlier calls"}
        own = {"this": 0, **self.segmented}
        return ": " + ", ".join(f"{own[whose]} {said}" for whose, said in named.items() if whose in own)
