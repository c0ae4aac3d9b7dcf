"""What a worker does, in whatever process it stands."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any, Protocol

Done = Callable[[int, Any], None]
"""Takes a task's number and its result."""


class Worker(Protocol):
    """Work that is set up: what is costly (a network) has been loaded."""

    def work(self, tasks: Iterator[tuple[int, Any]], done: Done) -> None:
        """Do tasks, given with their numbers, in their order, until there are no more.

        Args:
            tasks: the next one is asked for early, in any thread; it may be long in coming.
            done: is told each result, in the order of the tasks, from any thread.
        """


class Job(Protocol):
    """A description of work that can be sent to other processes."""

    def open(self) -> Worker:
        """Set the work up.

        Raises:
            RequestError: it cannot be done at all.
        """


class Inbox:
    """Tasks as they arrive, for :meth:`Worker.work`."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()

    def put(self, task: tuple[int, Any] | None) -> None:
        """Add a task; None ends the work."""
        self._tasks.put(task)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """The tasks, each when it is there."""
        while (task := self._tasks.get()) is not None:
            yield task
