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


def hanging_outcomes(engine: Engine, before: list[Any], after: list[Any]) -> dict[int, Any]:
    """What two workers make of ``before``, ``"hang"`` and ``after``, however slow the machine is.

    The pool's clock stands still until every task of ``before`` has ended, and then jumps past the limit, at which
    only the hanging task is under way. ``after`` is given out when that one has ended.
    """
    found: dict[int, Any] = {}
    hanging = len(before)

    def tasks() -> Iterator[Task | None]:
        yield from (Task(n, work) for n, work in enumerate([*before, "hang"]))
        while hanging not in found:
            yield None
        yield from (Task(hanging + 1 + n, work) for n, work in enumerate(after))

    def clock() -> float:
        return 0.0 if any(n not in found for n in range(hanging)) else 100.0

    for task, result in Pool(engine, 2, seconds=60.0, clock=clock).run(tasks()):
        found[task.number] = result
    return found
