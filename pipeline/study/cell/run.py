"""One cell from its claim to its row, in this process: trained as ``rarevox train`` does, scored, written down."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from rarevox.pipeline.bundle import LEFT_OUT
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.files import clear_parts_below, write_json
from rarevox.pipeline.study.cell.trained import Interrupted, Unwritten, trained_row
from rarevox.pipeline.study.claims import claimed
from rarevox.pipeline.study.job import FULL, LOGS, Job, Outcome, read_row, unreachable
from rarevox.pipeline.study.rows import CELL_FILE, Row
from rarevox.pipeline.trust.sums import forget_sums


def run_cell(job: Job) -> Outcome:
    """Bring a cell to its row, unless it has one or another process is at it.

    A cell that was cut off goes on from its checkpoint, bit for bit, and one without a checkpoint begins anew; so does
    one that failed and is tried again. One that was trained without some cases begins anew, to learn from them.
    Whatever is wrong with it becomes the reason in its row. What is printed goes to ``logs/CELL.log`` of the study.
    """
    began = time.monotonic()
    name, folder = job.cell.name, job.folder
    try:
        with claimed(Path(job.study), name) as mine:
            if not mine:
                return Outcome(name, "elsewhere")
            row = read_row(job.study, name)
            if row is not None and (row.whole or not job.retry):
                _prune(job, row)
                return Outcome(name, "kept")
            if row is not None and (row.done or (folder / LEFT_OUT).is_file()):
                shutil.rmtree(folder, ignore_errors=True)
            (folder / CELL_FILE).unlink(missing_ok=True)
            with _told_to(Path(job.study) / LOGS / f"{name}.log"):
                return _attempted(job, began)
    except OSError as error:
        return unreachable(name, error)
    except KeyboardInterrupt:
        return Outcome(name, "interrupted", "130")
    finally:
        gc.collect()  # engines and configurations refer to one another in circles


def _attempted(job: Job, began: float) -> Outcome:
    """Train and score; the row is on the disk when this returns ``done`` or ``failed``."""
    name = job.cell.name
    try:
        row = trained_row(job, began)
    except Interrupted as error:
        return Outcome(name, "interrupted", str(error))
    except Unwritten as error:
        return Outcome(name, "unwritten", str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return unreachable(name, error)
        row = Row(name, job.cell.labels, "failed", _reason(error), last=job.last)
    write_json(job.folder / CELL_FILE, row.to_json())
    _prune(job, row)
    test = float("nan") if row.test is None else row.test.mean_dice
    return Outcome(name, row.state, row.reason, time.monotonic() - began, row.train_dice.median, test)


def _reason(error: Exception) -> str:
    worded = isinstance(error, (RequestError, FloatingPointError, OSError))
    return reason_of(error) if worded else f"{type(error).__name__}: {reason_of(error)}"


def _prune(job: Job, row: Row) -> None:
    """Take away what nothing needs once the row is there: half-written files, and weights that nobody asked for.

    Of a cell that failed the checkpoint stays: what it failed of (memory, a worker, the scoring) may be mended.
    """
    clear_parts_below(job.folder)
    if not row.done:
        return
    if not job.keep_weights:
        shutil.rmtree(job.folder / "models", ignore_errors=True)
        with suppress(OSError):
            forget_sums(job.folder)
    else:
        for checkpoint in ("last.pt", "previous.pt"):  # of a training that is over
            (job.folder / "models" / checkpoint).unlink(missing_ok=True)


@contextmanager
def _told_to(file: Path) -> Iterator[None]:
    """What is printed goes into a file."""
    file.parent.mkdir(exist_ok=True)
    with file.open("a", encoding="utf-8", errors="backslashreplace") as log, redirect_stderr(log), redirect_stdout(log):
        yield
