"""A call at work in a folder: from the first scan that is handed out to the files made of the journals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.collect import write_results
from rarevox.pipeline.cohort.desk import Desk
from rarevox.pipeline.cohort.ledger import Ledger
from rarevox.pipeline.cohort.owners import lives
from rarevox.pipeline.cohort.rows import RESULT_FILE
from rarevox.pipeline.console import console, progress_bar
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import clear_parts_below
from rarevox.pipeline.inference.calls.crew import Hands
from rarevox.pipeline.inference.calls.planning import Plan
from rarevox.pipeline.inference.calls.row import begun_row, remove_files
from rarevox.pipeline.inference.calls.session import Session
from rarevox.pipeline.inference.outputs.output import Output
from rarevox.pipeline.locks import held
from rarevox.pipeline.workers.pool import Task
from rarevox.pipeline.workers.shards import Shard


def work(
    folder: Path,
    session: Session,
    wanted: Plan,
    share: Shard | None,
    hands: Hands,
    outputs: Sequence[Output],
    *,
    keep: bool,
) -> int:
    """Do the scans of a call, write what is made of the journals and tell what failed.

    Args:
        folder: of the predictions.
        session: of this call.
        wanted: the whole list of scans.
        share: of this call; None for all.
        hands: do them.
        outputs: what is written of each scan.
        keep: rows of earlier sessions stand where they are what this call would write.

    Returns:
        0, or 1 where scans failed or rows could not be written.

    Raises:
        RequestError: those who did them could not go on, as where the run has gone; what was done is listed.
    """
    items, left = wanted.share(share)

    def stands(item: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        return keep and session.stands(folder, item, row, outputs)

    with progress_bar() as bar:
        progress = bar.add_task("predicting", total=len(items))
        desk = Desk(
            folder,
            session.ledger,
            session.journal,
            items,
            session=session.id,
            stands=stands,
            told=lambda case: bar.advance(progress),
        )

        def failed(task: Task, reason: str) -> Mapping[str, Any]:
            remove_files(folder, outputs, task.work["item"], task.work["earlier"])
            return begun_row(task.work["item"], reason)

        for number, row in left:
            session.journal.append({"n": number, "t": 0, "left": row})
        with _orderly(desk) as ended:
            hands(desk, session.others, failed)
    status = _finish(folder, session, None if share is None else {str(item["case"]) for _, item in items}, ended)
    for error in ended.refused:
        raise RequestError(f"{error}; what is done stands in {folder}, and the same call with --keep goes on")
    return status


class _Ended:
    """How the work ended: why rows could not be written, and why it could not go on."""

    def __init__(self) -> None:
        self.unwritten: list[str] = []
        self.refused: list[RequestError] = []


@contextmanager
def _orderly(desk: Desk) -> Iterator[_Ended]:
    """However the work ends, what is done is in the journal and nothing is claimed any more; SIGTERM ends it like
    Ctrl-C."""
    ended = _Ended()
    before: Any = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield ended
    except RequestError as error:
        ended.refused.append(error)
    except (KeyboardInterrupt, SystemExit):
        console.print("ended early; the same call with --keep goes on, and `rarevox collect` lists what is done")
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if why := desk.close():
            ended.unwritten.append(why)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _finish(folder: Path, session: Session, own: set[str] | None, ended: _Ended) -> int:
    """Write the files that are made of the journals, tell what failed, and give the exit status."""
    unwritten, remedy = ended.unwritten, "free some space and predict again with --keep"
    counts: Callable[[str], bool] = (lambda case: True) if own is None else own.__contains__
    try:
        tally = write_results(folder, session.ledger, counts=counts, call=session.journal.id)
    except OSError as error:
        unwritten.append(f"{RESULT_FILE} not written: {error.strerror or error}")
        console.print(f"{'; '.join(unwritten)}; {remedy}")
        return 1
    _clear_up(folder, session.ledger)
    status = tally.tell(folder)
    if unwritten:
        console.print(f"{'; '.join(unwritten)}; {remedy}")
    return 1 if unwritten else status


def _clear_up(folder: Path, ledger: Ledger) -> None:
    """Remove what killed calls left half-written, where no other call is at work any more.

    The folder is held meanwhile: a call elsewhere whose scans are done may still write the files made of the journals,
    and another one may begin. Where one does, it is left to that one.
    """
    with suppress(RequestError, OSError), held(folder, patience=0):
        ledger.refresh()
        if not any(lives(folder, one.id, one.header) for one in ledger.sources if not one.ended and one.header):
            clear_parts_below(folder)
