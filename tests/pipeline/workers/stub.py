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
