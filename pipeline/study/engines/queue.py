"""What engines have in common: which jobs wait, which come again, and how a process of theirs ends for good."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path

from rarevox.pipeline.files import write_json
from rarevox.pipeline.study.claims import claimed
from rarevox.pipeline.study.job import LOGS, Job, Outcome, read_row, unreachable
from rarevox.pipeline.study.rows import CELL_FILE, Row

AGAIN_SECONDS = 1.0
"""Between two looks at a cell that another process is at."""
PATIENCE_SECONDS = 20.0
"""So long is waited for cells that others are at, when there is nothing else to begin: what a killed call started may
outlive it."""
LIVES = 2
"""A cell whose process was ended from outside is tried so often in all."""


class Queue:
    """The jobs of a call: handed out in order, those that others are at once more at the end.

    Args:
        jobs: in the plan's order.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting = deque(jobs)
        self._aside: deque[Job] = deque()
        self._looked = 0.0
        self._idle_since: float | None = None
        self._ended: Counter[str] = Counter()
        self.stopped = False

    def __len__(self) -> int:
        return 0 if self.stopped else len(self._waiting) + len(self._aside)

    def take(self) -> Job | None:
        """The next job that may be tried now; None where there is none for the moment."""
        if self.stopped:
            return None
        if self._waiting:
            self._idle_since = None
            return self._waiting.popleft()
        if self._aside and time.monotonic() - self._looked >= AGAIN_SECONDS:
            self._looked = time.monotonic()
            return self._aside.popleft()
        return None

    def settle(self, job: Job, outcome: Outcome) -> Outcome | None:
        """What an attempt came to; None where the job will be tried again.

        A full disk stops the queue: nothing else could be written either.
        """
        if outcome.state == "elsewhere":
            self._idle_since = self._idle_since or time.monotonic()
            if time.monotonic() - self._idle_since < PATIENCE_SECONDS or self._waiting:
                self._aside.append(job)
                return None
        self.stopped = self.stopped or outcome.state in ("unwritten", "interrupted")
        return outcome

    def lost(self, job: Job, how: str) -> Outcome | None:
        """A process ended without a word while it was at a job; it is tried once more, then it has failed.

        Args:
            job: what the process was at.
            how: it ended, for the reason.
        """
        self._ended[job.cell.name] += 1
        if self._ended[job.cell.name] < LIVES:
            self._waiting.appendleft(job)
            return None
        killed = how.startswith("signal")
        why = "mostly the memory ran out" if killed else f"what it said stands in {job.study}/{LOGS}/workers.log"
        return failed(
            job, f"its process {'was ended from outside' if killed else 'ended'} {LIVES} times ({how}); {why}"
        )


def failed(job: Job, reason: str) -> Outcome:
    """Write down that a cell has failed, in the place of the process that could not."""
    try:
        with claimed(Path(job.study), job.cell.name) as mine:
            row = read_row(job.study, job.cell.name)
            if not mine or (row is not None and row.done):
                return Outcome(job.cell.name, "elsewhere" if not mine else "kept")
            row = Row(job.cell.name, job.cell.labels, "failed", reason, last=job.last)
            write_json(job.folder / CELL_FILE, row.to_json())
    except OSError as error:
        return unreachable(job.cell.name, error)
    return Outcome(job.cell.name, "failed", reason)
