"""The engine of one machine: processes that are kept, so that a cell costs its steps and not the start of Python."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from rarevox.pipeline.logs import show_logs_visibly
from rarevox.pipeline.study.engines.queue import AGAIN_SECONDS, Queue
from rarevox.pipeline.study.job import LOGS, Job, Outcome

PRELOADED = ["monai.bundle", "rarevox.pipeline.study.cell.run"]
"""What the server of forks imports before its first fork."""


@dataclass
class _Worker:
    """A process, the line to it, what keeps it alive, and what it is at."""

    process: Any
    line: Any
    alive: Any
    job: Job | None = None


def run_locally(jobs: Sequence[Job], *, workers: int) -> Iterator[Outcome]:
    """Run jobs in so many processes of this machine; outcomes as they come, one for each job that was tried to its end.

    A process that is killed takes its cell with it once; a new one goes on with it. Interrupted (Ctrl-C), the processes
    end after the step in hand, and where this process is killed, they do so too.

    Args:
        jobs: in order.
        workers: processes.
    """
    context = _context()
    queue, pool = Queue(jobs), []
    try:
        pool = [_started(context, jobs[0].study) for _ in range(min(workers, len(jobs)))]
        while queue or any(worker.job for worker in pool):
            for worker in pool:
                if worker.job is None and (job := queue.take()) is not None:
                    worker.job = job
                    with suppress(OSError):  # it has just died, which is seen below
                        worker.line.send(job)
            yield from _heard(pool, queue, context)
    finally:
        _end(pool)


def _context() -> Any:
    kinds = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    if "forkserver" in kinds:
        context.set_forkserver_preload(PRELOADED)
    return context


def _started(context: Any, study: str) -> _Worker:
    line, theirs = context.Pipe()
    alive, ours = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(theirs, alive, str(Path(study) / LOGS / "workers.log")))
    process.start()
    theirs.close()
    alive.close()
    return _Worker(process, line, ours)


def _heard(pool: list[_Worker], queue: Queue, context: Any) -> Iterator[Outcome]:
    """Wait for a word of a worker, or its end, and take in what it says."""
    lines = {worker.line: worker for worker in pool if worker.job is not None}
    ready = connection.wait(list(lines), timeout=AGAIN_SECONDS)
    for line in ready:
        worker = lines[line]  # type: ignore[index]
        job, worker.job = worker.job, None
        assert job is not None
        try:
            outcome = queue.settle(job, worker.line.recv())
        except (EOFError, OSError):
            worker.process.join()
            outcome = queue.lost(job, _ending(worker.process.exitcode))
            pool[pool.index(worker)] = _started(context, job.study)
        if outcome is not None:
            yield outcome


def _ending(code: int | None) -> str:
    """How a process ended.

    >>> _ending(-9), _ending(3)
    ('signal SIGKILL', 'status 3')
    """
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"status {code}"


def _end(pool: list[_Worker]) -> None:
    """End all workers: idle ones by a word, those at work after their step; interrupted once more, at once."""
    try:
        for worker in pool:
            with suppress(OSError):
                worker.line.send(None)
            if worker.job is not None and worker.process.pid is not None:
                with suppress(OSError):
                    os.kill(worker.process.pid, signal.SIGTERM)
        for worker in pool:
            worker.process.join()
    except KeyboardInterrupt:
        for worker in pool:
            worker.process.kill()
        raise
    finally:
        for worker in pool:
            worker.line.close()
            worker.alive.close()


def work(line: Any, alive: Any, log: str) -> None:
    """A worker's life: run the jobs that come, until None comes or the call that began it has gone.

    Args:
        line: jobs come, outcomes go.
        alive: is closed when the call ends, however it ends.
        log: takes what libraries write past Python's streams.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever began this says when to end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()
    show_logs_visibly()
    from rarevox.compiled.team import take_own_team
    from rarevox.pipeline.study.cell.run import run_cell

    take_own_team()  # the server has imported modules and computed nothing
    gc.freeze()  # nor is what it imported ever garbage: no collection of a cell's looks through it, or copies its pages
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (job := line.recv()) is not None:
            line.send(run_cell(job))


def _watch(alive: Any) -> None:
    """End this process after the step in hand when the call that began it has gone."""
    with suppress(EOFError, OSError):
        alive.recv()
    os.kill(os.getpid(), signal.SIGTERM)
