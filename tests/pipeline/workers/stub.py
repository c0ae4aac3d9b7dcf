"""Work that does what its tasks say."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.workers.job import Done
from rarevox.pipeline.workers.pool import Engine, Pool, Task


@dataclass(frozen=True)
class Stub:
    """A job: ``sleep``, ``kill``, ``crash``, ``hang``, ``once PATH`` (dies the first time) or anything, given back."""

    refuses: bool = False

    def open(self) -> Stub:
        if self.refuses:
            raise RequestError("there is no such work")
        return self

    def work(self, tasks: Iterator[tuple[int, Any]], done: Done) -> None:
        for number, task in tasks:
            if task == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if task == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if task == "hang":
                time.sleep(1000)
            if task == "error":
                raise ValueError("this is no task")
            if isinstance(task, tuple) and not Path(task[1]).exists():
                Path(task[1]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            done(number, (os.getpid(), task))


def hanging_outcomes(engine: Engine, before: list[Any], after: list[Any], workers: int = 2) -> dict[int, Any]:
    """What workers make of ``before``, ``"hang"`` and ``after``, however slow the machine is and however few begin.

    The pool's clock stands still until the hanging task alone is under way, and then jumps past the limit. What of
    ``before`` waits for a worker even then, as where the only other one never began, is done afterwards. ``after`` is
    given out when the hanging task has ended.
    """
    found: dict[int, Any] = {}
    hanging = len(before)
    jumped = False

    def tasks() -> Iterator[Task | None]:
        yield from (Task(n, work) for n, work in enumerate([*before, "hang"]))
        while hanging not in found:
            yield None
        yield from (Task(hanging + 1 + n, work) for n, work in enumerate(after))

    def clock() -> float:
        nonlocal jumped
        jumped = jumped or [task.number for worker in pool.workers for task in worker.tasks] == [hanging]
        return 100.0 if jumped else 0.0

    pool = Pool(engine, workers, seconds=60.0, clock=clock)
    for task, result in pool.run(tasks()):
        found[task.number] = result
    return found
