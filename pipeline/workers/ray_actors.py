"""Workers as actors on a Ray cluster, each with its work set up once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.logs import show_logs_visibly
from rarevox.pipeline.workers.job import Inbox, Job
from rarevox.pipeline.workers.pool import AHEAD, Event
from rarevox.pipeline.workers.ray_cluster import connected, require_room

_MOST_AT_ONCE = AHEAD + 4


class RayActors:
    """An :class:`rarevox.pipeline.workers.pool.Engine` of actors.

    The nodes must reach all files under the same names. An actor for which the cluster has no room yet begins when it
    has; the others do the work meanwhile.

    Args:
        job: what they do; it and its tasks must be picklable, its paths absolute.
        address: of the cluster; None starts one on this machine, which ends with the engine.
        cpus: set aside for an actor.
        gpus: likewise.

    Raises:
        RequestError: Ray is not installed, no cluster answers, or none of its nodes has so much.
    """

    def __init__(self, job: Job, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        self.job, self._ray = job, connected(address)
        try:
            remedy = "give less with --worker-cpus and --worker-gpus"
            require_room(self._ray, cpus, gpus, what="a worker", remedy=remedy)
        except RequestError:
            self._ray.shutdown()
            raise
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": _MOST_AT_ONCE}
        self._class = self._ray.remote(**options)(Actor)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, int]] = {}

    def start(self, worker: int) -> None:
        """Ask for an actor."""
        self._actors[worker] = self._class.remote(self.job)
        self._pending[self._actors[worker].ready.remote()] = (worker, -1)

    def send(self, worker: int, number: int, work: Any) -> None:
        """Call it with a task; an actor does its calls in their order."""
        self._pending[self._actors[worker].do.remote(number, work)] = (worker, number)

    def wait(self, seconds: float) -> Sequence[Event]:
        """What the calls came to."""
        waiting = list(self._pending)
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0) if ready else (ready, [])
        events = [self._event(one) for one in ready if one in self._pending]
        return [event for event in events if event is not None]

    def end(self, worker: int) -> None:
        """Kill it."""
        actor = self._actors.pop(worker)
        self._pending = {one: whose for one, whose in self._pending.items() if whose[0] != worker}
        with suppress(Exception):  # it, or the cluster, may be what has gone
            self._ray.kill(actor)

    def close(self) -> None:
        """Kill all and end the connection."""
        for worker in list(self._actors):
            self.end(worker)
        self._ray.shutdown()

    def _event(self, reference: Any) -> Event | None:
        if reference not in self._pending:  # its worker was found to be dead a moment ago
            return None
        worker, number = self._pending[reference]
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, RequestError):
                return Event(worker, "refused", str(error.cause))
            self.end(worker)
            return Event(worker, "died", f"ended: {reason_of(error.cause)}")
        except errors.OutOfMemoryError:
            self.end(worker)
            return Event(worker, "died", "was killed by Ray, as its node ran out of memory")
        except errors.RayError:
            self.end(worker)
            return Event(worker, "died", "was lost (killed, crashed, or its node has gone)")
        del self._pending[reference]
        return Event(worker, "ready") if number < 0 else Event(worker, "done", value, number)


class Actor:
    """A worker on a node. Its methods run on one loop, in the order in which they are called, and wait there.

    Args:
        job: what it does.
    """

    def __init__(self, job: Job) -> None:
        show_logs_visibly()
        self._job, self._inbox = job, Inbox()
        self._results: dict[int, asyncio.Future[Any]] = {}

    async def ready(self) -> bool:
        """Set the work up."""
        loop = asyncio.get_running_loop()
        worker = await loop.run_in_executor(None, self._job.open)

        def done(number: int, result: Any) -> None:
            loop.call_soon_threadsafe(self._results.pop(number).set_result, result)

        def work() -> None:
            try:
                worker.work(iter(self._inbox), done)
            finally:  # no worker works without end
                os._exit(1)

        threading.Thread(target=work, daemon=True).start()
        return True

    async def do(self, number: int, work: Any) -> Any:
        """Do a task; its result."""
        self._results[number] = asyncio.get_running_loop().create_future()
        result = self._results[number]
        self._inbox.put((number, work))
        return await result
