"""The desk of one call: which scan is next, with nobody else at it, and what has come of each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.claims import Claims
from rarevox.pipeline.cohort.journal import Journal
from rarevox.pipeline.cohort.ledger import Ledger
from rarevox.pipeline.cohort.owners import lives
from rarevox.pipeline.workers.pool import Task

Item = Mapping[str, Any]
Row = dict[str, Any]
_SPREAD = 0.6180339887498949
"""The golden ratio's fraction: calls that begin at its multiples along a list stand far from one another."""


class Desk:
    """Hands out the scans of a call, each once among all calls that share the folder, and takes the rows.

    A scan is handed out when it has been claimed and no journal of this session holds a row of it. A *session* is all
    calls that were at work together, one after the other at the least by a moment: what one of them did, none does
    again. Rows of earlier sessions count where ``stands`` says so.

    Args:
        folder: of the predictions.
        ledger: what the journals say; read up to now.
        journal: this call's own.
        items: the scans of this call, each with its number in the list of the cohort.
        stands: tells of a scan and its row of an earlier session whether it need not be done again.
        told: is called for each scan that is dealt with, by this call or another, with its name.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        journal: Journal,
        items: Sequence[tuple[int, Item]],
        *,
        session: str,
        stands: Callable[[Item, Row], bool] = lambda item, row: False,
        told: Callable[[str], None] = lambda case: None,
    ) -> None:
        self.folder, self.ledger, self.journal, self.items = folder, ledger, journal, items
        self.session, self.stands, self.told = session, stands, told
        self._ended = threading.Event()
        self.claims = Claims(folder, journal.id, lambda owner: lives(folder, owner, ledger.header(owner)))

    def tasks(self, others: int = 0) -> Iterator[Task | None]:
        """The scans to do; None where all that are left are in other calls' hands at the moment.

        Ends when each scan has a row. The work of a task is ``{"item", "earlier"}``: the row of before, whose files go
        when the scan is done anew.

        Args:
            others: calls that were at work before this one: it begins elsewhere in the list.
        """
        begin = int(len(self.items) * (others * _SPREAD % 1.0))
        waiting = deque(range(begin, len(self.items)))
        waiting.extend(range(begin))
        while waiting:
            busy = 0
            while waiting and busy < len(waiting):
                at = waiting.popleft()
                number, item = self.items[at]
                found = self._look(number, item)
                if found == "busy":
                    waiting.append(at)
                    busy += 1
                elif found == "done":
                    self.told(str(item["case"]))
                else:
                    busy = 0
                    yield found  # type: ignore[misc]
            if waiting:
                yield None

    def blocking(self, others: int = 0, seconds: float = 1.0) -> Iterator[Task]:
        """:meth:`tasks`, waiting where there is none at the moment."""
        for task in self.tasks(others):
            if task is not None:
                yield task
            elif self._ended.wait(seconds):
                return

    def done(self, number: int, row: Row) -> None:
        """Write the row of a scan that was handed out; when it is on the disk the scan is no longer claimed."""
        case = str(row["case"])
        self.journal.append({"n": number, "t": time.time(), "row": row}, lambda: self.claims.give_back(case))
        self.told(case)

    def close(self) -> str:
        """Hand out nothing more, write what is left and claim nothing; why rows could not be written, or nothing."""
        self._ended.set()
        unwritten = self.journal.close()
        self.claims.give_back_all()
        return unwritten

    def _look(self, number: int, item: Item) -> Task | str:
        case = str(item["case"])
        if self._is_done(case, item):
            return "done"
        ended = self.claims.take(case)
        if ended is None:
            self.ledger.refresh()
            return "done" if self._is_done(case, item) else "busy"
        self.ledger.refresh()
        if self._is_done(case, item):
            self.claims.give_back(case)
            return "done"
        files = self.ledger.row(case) if case in self.ledger else {}
        return Task(number, {"item": item, "earlier": files}, ended)

    def _is_done(self, case: str, item: Item) -> bool:
        """Whether this session has a row of it, or an earlier one's stands."""
        if case not in self.ledger:
            return False
        source = self.ledger.source_of(case)
        if source.header.get("session") == self.session:
            return True
        return self.ledger.is_ok(case) and self.stands(item, self.ledger.row(case))
