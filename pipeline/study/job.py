"""What is to be done about a cell, and how an attempt at it ended."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.files import read_json
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.rows import CELL_FILE, Row

CELLS, LOGS = "cells", "logs"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of a disk that takes no more: no fault of the cell, and no other could be written either."""


@dataclass(frozen=True)
class Job:
    """What a process needs to know to run a cell.

    Attributes:
        study: the folder of the study.
        dataset: the folder of the study's dataset.
        cell: which cell.
        last: iterations over which the Dice of training batches is summarised.
        section: whose cases are scored after the training; empty for none.
        full: score with all figures and a page, else by overlap alone.
        structures: whose Dice count; none are all.
        device: auto, cpu, cuda or cuda:i.
        threads: of the training.
        keep_weights: leave the model in the cell's folder.
        trust: build whatever configurations say.
        retry: try a cell again that failed, and train one anew that lacked cases.
    """

    study: str
    dataset: str
    cell: PlannedCell
    last: int = 200
    section: str = "test"
    full: bool = False
    structures: tuple[str, ...] = ()
    device: str = "auto"
    threads: int = 1
    keep_weights: bool = False
    trust: bool = False
    retry: bool = False

    @property
    def folder(self) -> Path:
        """The cell's run."""
        return Path(self.study) / CELLS / self.cell.name


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a cell ended.

    Attributes:
        cell: its name.
        state: ``done``, ``failed``, ``kept`` (its row was there), ``elsewhere`` (another process is at it),
            ``interrupted`` or ``unwritten`` (the disk takes no more). A failed one has its row, unless its files cannot
            be reached: then nothing is written, and the next call tries it again.
        reason: of ``failed`` and ``unwritten``; of ``interrupted`` the exit status.
        seconds: that it took.
        train_dice: median Dice of the last training batches; NaN where there is none.
        test_dice: mean Dice of the held-out cases.
    """

    cell: str
    state: str
    reason: str = ""
    seconds: float = 0.0
    train_dice: float = float("nan")
    test_dice: float = float("nan")


def unreachable(cell: str, error: OSError) -> Outcome:
    """How an attempt ended whose files could not be read or written: the disk is full, or they are somebody else's.

    >>> unreachable("a", PermissionError(errno.EACCES, "Permission denied", "cells/a")).reason
    "[Errno 13] Permission denied: 'cells/a'"
    """
    return Outcome(cell, "unwritten" if error.errno in FULL else "failed", reason_of(error))


def read_row(study: str | Path, cell: str) -> Row | None:
    """The row of a cell; None where it has none yet, or a damaged one."""
    try:
        return Row.from_json(read_json(Path(study) / CELLS / cell / CELL_FILE))
    except (RequestError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def last_words(file: Path) -> str:
    """The last line of a cell's log; empty where there is none."""
    with suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def jobs_of(study: Path, dataset: Path, cells: Iterable[PlannedCell], **options: Any) -> list[Job]:
    """A job for each cell."""
    return [Job(str(study), str(dataset), cell, **options) for cell in cells]
