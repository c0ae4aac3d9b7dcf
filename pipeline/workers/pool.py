"""Tasks handed to workers that may die or hang: each ends as a result, or as the reason why there is none."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.words import counted

AHEAD = 2
"""Tasks that a worker has besides the one that it computes: the next is read, the last is written."""
PATIENCE_SECONDS = 0.5
_MOST_FALSE_STARTS = 3


@dataclass
class Task:
    """A piece of work.

    Attributes:
        number: another one for each.
        work: what the worker is sent.
        ended: workers, or whole calls, that ended at it without a word.
    """

    number: int
    work: Any
    ended: int = 0


@dataclass(frozen=True)
class Death:
    """Why a task has no result: its workers ended, or it took too long (``late``)."""

    reason: str
    late: bool = False


@dataclass(frozen=True)
class Event:
    """What an engine tells of a worker: ``ready``, ``done`` (with the task's number and its result), ``died`` (with
    the reason) or ``refused`` (with the message of a `RequestError`)."""

    worker: int
    kind: Literal["ready", "done", "died", "refused"]
    value: Any = None
    number: int = -1


class Engine(Protocol):
    """Starts workers and speaks with them. A worker does its tasks in the order in which it got them."""

    def start(self, worker: int) -> None:
        """Start a worker, or one in the place of another that has ended."""

    def send(self, worker: int, number: int, work: Any) -> None:
        """Give a worker a task; one that has ended meanwhile is told by the next :meth:`wait`."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened; nothing after so many seconds without news."""

    def end(self, worker: int) -> None:
        """End a worker at once, whatever it does; nothing more is told of it."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class _Worker:
    ready: bool = False
    gone: bool = False
    alone: bool = False
    began: float = 0.0
    since: float = 0.0
    tasks: deque[Task] = field(default_factory=deque)


class Pool:
    """Hands tasks to the workers of an engine.

    When a worker dies, any of the tasks that it had may be the cause, the oldest of them before all: each is done once
    more, by itself, with nothing ahead. A task at which two workers have died, the second with that task alone, has no
    further trial. Where ``seconds`` go by without a result
    while a worker has tasks, it is ended; the oldest of them has no result, the others start afresh. A worker that
    refuses the work, or ends three times before it begins, is gone for good, and the others do its share.

    Args:
        engine: of the workers.
        workers: how many.
        seconds: the longest that a task may take; None for no limit.
        begin_seconds: the longest that a worker may take to be ready; one that takes longer has ended, None for no
            limit.
        clock: monotonic seconds.
        ended: is told why, where a worker ended that another one replaces.

    Attributes:
        lost: why workers are gone that nobody replaced; empty where all are there.
    """

    def __init__(
        self,
        engine: Engine,
        workers: int,
        *,
        seconds: float | None = None,
        begin_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[str], Any] = lambda reason: None,
    ) -> None:
        self.engine, self.seconds, self.begin_seconds, self.clock = engine, seconds, begin_seconds, clock
        self.ended = ended
        self.workers = [_Worker() for _ in range(workers)]
        self._suspects: deque[Task] = deque()
        self._again: deque[Task] = deque()
        self._false_starts = 0
        self._opened = False
        self.lost = ""

    def open(self) -> None:
        """Start the workers and wait until one of them is ready; who calls it closes the engine at last.

        Raises:
            RequestError: none can begin.
        """
        for number in range(len(self.workers)):
            self._restart(number)
        while not any(worker.ready for worker in self.workers):
            for event in self.engine.wait(PATIENCE_SECONDS):
                list(self._heed(event))
            list(self._overdue())
        self._opened = True

    def run(self, tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Any]]:
        """The tasks with their results, or a :class:`Death`, as they come.

        Args:
            tasks: None among them says that there is none at the moment; it is asked again after a while.

        Raises:
            RequestError: no worker is left: they refuse the work, or end three times in a row before they begin. What
                was done before has been given.
        """
        try:
            yield from self._results(tasks)
        finally:
            self.engine.close()

    def do(self, task: Task) -> Any:
        """The result of one task, or a :class:`Death`; the workers stay, for the next one.

        One that has ended meanwhile, with nothing to do, is replaced, and counts for nothing.

        Raises:
            RequestError: no worker is left.
        """
        if self._opened:
            for event in self.engine.wait(0.0):
                list(self._heed(event))
        ((_, result),) = self._results(iter([task]))
        return result

    def _results(self, tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Any]]:
        if not self._opened:
            self.open()
        more = True
        while True:
            more = self._feed(tasks) if more else more
            if not more:
                self._feed(iter(()))
            if not more and not self._suspects and not self._again and not any(w.tasks for w in self.workers):
                return
            for event in self.engine.wait(PATIENCE_SECONDS):
                yield from self._heed(event)
            yield from self._overdue()

    def _feed(self, tasks: Iterator[Task | None]) -> bool:
        """Give every worker what it has room for; False when no more will come."""
        for number, worker in enumerate(self.workers):
            while worker.ready and not worker.alone and len(worker.tasks) <= AHEAD:
                if self._suspects and not worker.tasks:
                    self._send(number, self._suspects.popleft(), alone=True)
                    break
                if self._again:
                    self._send(number, self._again.popleft())
                    continue
                try:
                    task = next(tasks)
                except StopIteration:
                    return False
                if task is None:
                    return True
                if task.ended:
                    self._suspects.append(task)
                else:
                    self._send(number, task)
        return True

    def _send(self, number: int, task: Task, *, alone: bool = False) -> None:
        worker = self.workers[number]
        if not worker.tasks:
            worker.since = self.clock()
        worker.alone = alone
        worker.tasks.append(task)
        self.engine.send(number, task.number, task.work)

    def _heed(self, event: Event) -> Iterator[tuple[Task, Any]]:
        worker = self.workers[event.worker]
        if event.kind == "refused":
            self.engine.end(event.worker)
            self._retire(event.worker, str(event.value))
        elif event.kind == "ready":
            worker.ready, self._false_starts = True, 0
        elif event.kind == "done":
            worker.since = self.clock()
            task = next(one for one in worker.tasks if one.number == event.number)
            worker.tasks.remove(task)
            worker.alone = False
            yield task, event.value
        else:
            yield from self._died(event.worker, str(event.value))

    def _died(self, number: int, reason: str) -> Iterator[tuple[Task, Any]]:
        worker = self.workers[number]
        self._false_starts += not worker.ready
        tasks, alone = list(worker.tasks), worker.alone
        if self._false_starts >= _MOST_FALSE_STARTS:
            told = f"workers end before they begin: {reason}; try fewer workers, or more memory for each"
            self._retire(number, told)
        else:
            self.ended(reason)
            self._restart(number)
        for task in tasks:
            task.ended += task is tasks[0]
            if alone and task.ended > 1:
                yield task, Death(f"the worker that segmented it {reason}, and so did the one before")
            else:
                self._suspects.append(task)

    def _retire(self, number: int, reason: str) -> None:
        """Do without a worker.

        Raises:
            RequestError: it was the last.
        """
        self.workers[number] = _Worker(gone=True)
        self.lost, self._false_starts = reason, 0
        if all(worker.gone for worker in self.workers):
            raise RequestError(reason)

    def _overdue(self) -> Iterator[tuple[Task, Any]]:
        now = self.clock()
        for number, worker in enumerate(self.workers):
            slow = self.begin_seconds is not None and now - worker.began > self.begin_seconds
            if slow and not worker.ready and not worker.gone:
                self.engine.end(number)
                yield from self._died(number, f"did not begin within {self.begin_seconds:g} s")
                continue
            if self.seconds is None or not worker.tasks or now - worker.since <= self.seconds:
                continue
            first, *others = worker.tasks
            self.engine.end(number)
            self.ended("took too long")
            self._restart(number)
            self._again += others
            told = f"it was not done within {counted(self.seconds / 60, 'minute')} (--scan-minutes) and was ended"
            yield first, Death(told, late=True)

    def _restart(self, number: int) -> None:
        self.engine.start(number)
        self.workers[number] = _Worker(began=self.clock())
