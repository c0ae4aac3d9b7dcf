"""Who does the work of a call: this process, processes of this machine, or actors on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from rarevox.pipeline.cohort.desk import Desk
from rarevox.pipeline.console import console
from rarevox.pipeline.cores import cores
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.calls.prediction import Prediction
from rarevox.pipeline.inference.calls.preloaded import PRELOADED
from rarevox.pipeline.workers.pool import Death, Engine, Pool, Task
from rarevox.pipeline.workers.processes import Processes

Entry = TypeVar("Entry")
Failed = Callable[[Task, str], Mapping[str, Any]]
"""Makes the row of a scan that has no result, of the reason."""
Hands = Callable[[Desk, int, Failed], None]
"""Does all scans of a desk, given how many calls were at work before."""
MOST_ENDED = 2
"""Calls that may end at a scan; the next one writes a failed row where it would risk itself."""


@dataclass(frozen=True)
class Crew:
    """How the work is shared out.

    Attributes:
        workers: processes or actors; 0 is this process itself, and one actor on Ray.
        scan_minutes: the longest that a scan may take.
        engine: ``local`` or ``ray``.
        address: of a Ray cluster.
        cpus: set aside for an actor.
        gpus: likewise.

    Raises:
        RequestError: options that do not go together.
    """

    workers: int = 0
    scan_minutes: float | None = None
    engine: str = "local"
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise RequestError(f"--engine {self.engine} is neither local nor ray")
        if self.engine == "local" and (self.address, self.cpus, self.gpus) != (None, None, None):
            raise RequestError("--address, --worker-cpus and --worker-gpus are for --engine ray; add it")
        if self.scan_minutes is not None and self.scan_minutes <= 0:
            raise RequestError(f"--scan-minutes {self.scan_minutes:g} is no time; give more than 0")

    def threads(self, scans: int) -> int:
        """Threads of a worker on the CPU: the cores that this process may use, shared out; 0 leaves it to PyTorch.

        Args:
            scans: how many there are; no more workers than these begin.
        """
        if self.engine == "ray":
            return int(self.cpus or 1)
        workers = min(self.workers, scans)
        return max(1, cores() // workers) if workers > 1 else 0

    @contextmanager
    def hands(self, job: Prediction, scans: int, *, at_once: bool = True) -> Iterator[Hands]:
        """Who does the work of a job. They end with the context.

        Args:
            job: the work.
            scans: how many there are.
            at_once: one of them at least is set up now, so that a fault of the run comes before anything is written;
                False where nothing is left to do: then only should a scan be handed out all the same.

        Raises:
            RequestError: nobody can do it.
        """
        if self.engine == "local" and not self.workers and self.scan_minutes is None:
            station = job.open() if at_once else None

            def here(desk: Desk, others: int, failed: Failed) -> None:
                for tasks in _unless_empty(_one_by_one(desk, others, failed)):
                    (station or job.open()).work(tasks, desk.done)

            yield here
            return
        with ExitStack() as ended:
            ready = self._pool(job, scans, ended) if at_once else None
            if ready is not None:
                ready.open()

            def elsewhere(desk: Desk, others: int, failed: Failed) -> None:
                for tasks in _unless_empty(desk.tasks(others)):
                    pool = ready or self._pool(job, scans, ended)
                    for task, result in pool.run(tasks):
                        row = failed(task, result.reason) if isinstance(result, Death) else result
                        desk.done(task.number, dict(row))
                    if pool.lost:
                        console.say("[yellow]fewer workers than asked for went on to the end[/yellow]: {}", pool.lost)

            yield elsewhere

    def _pool(self, job: Prediction, scans: int, ended: ExitStack) -> Pool:
        seconds = None if self.scan_minutes is None else 60 * self.scan_minutes
        pool = Pool(self._engine(job), max(1, min(self.workers, scans)), seconds=seconds)
        ended.callback(pool.engine.close)
        return pool

    def _engine(self, job: Prediction) -> Engine:
        if self.engine == "local":
            return Processes(job, PRELOADED)
        from rarevox.pipeline.workers.ray_actors import RayActors

        return RayActors(job, self.address, cpus=self.cpus or 1.0, gpus=self.gpus or 0.0)


def _unless_empty(entries: Iterator[Entry]) -> Iterator[Iterator[Entry]]:
    """The entries as one iterator; none where there is no entry."""
    for first in entries:
        yield chain([first], entries)
        return


def _one_by_one(desk: Desk, others: int, failed: Failed) -> Iterator[tuple[int, Any]]:
    """The scans for this process: one at which two calls have ended would end this one too."""
    for task in desk.blocking(others):
        if task.ended >= MOST_ENDED:
            reason = (
                f"{task.ended} calls ended while it was segmented (killed, or memory ran out); try it with --workers 1"
            )
            desk.done(task.number, dict(failed(task, reason)))
        else:
            yield task.number, task.work
