"""Workers as processes of this machine, forked from one that has loaded the libraries and nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.logs import show_logs_visibly
from rarevox.pipeline.workers.job import Inbox, Job
from rarevox.pipeline.workers.pool import Event

_REFUSED = 3


def start_server(preload: Sequence[str]) -> None:
    """Start the process of which workers are forked, which imports modules while this one goes on; once a process.

    Args:
        preload: their names; what cannot be imported is left to the workers.
    """
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload(list(preload))
        forkserver.ensure_running()


class Processes:
    """An :class:`rarevox.pipeline.workers.pool.Engine` of processes.

    A server process imports the libraries once (seconds); each worker is a fork of it (milliseconds), so that another
    one in the place of a dead one costs little more than the loading of the network. Workers end with this process,
    however that ends.

    Args:
        job: what they do; it and its tasks must be picklable.
        preload: modules that the server imports.
    """

    def __init__(self, job: Job, preload: Sequence[str] = ()) -> None:
        self.job = job
        self._context = _context()
        start_server(preload)
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Connection] = {}
        self._reasons: dict[int, str] = {}
        self._lock = threading.RLock()
        self._closed = False

    def start(self, worker: int) -> None:
        """Fork one.

        Raises:
            RequestError: it is closed already, perhaps by another thread.
        """
        with self._lock:
            if self._closed:
                raise RequestError("the workers have been ended")
            ours, theirs = self._context.Pipe()
            name = f"worker {worker}"
            process = self._context.Process(target=_serve, args=(self.job, theirs), daemon=True, name=name)
            try:
                process.start()
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            self._processes[worker], self._pipes[worker] = process, ours

    def send(self, worker: int, number: int, work: Any) -> None:
        """Send a task through the worker's pipe."""
        with contextlib.suppress(OSError):
            self._pipes[worker].send((number, work))

    def wait(self, seconds: float) -> Sequence[Event]:
        """What came through the pipes, and who has ended."""
        with self._lock:
            of = {pipe: worker for worker, pipe in self._pipes.items()}
            of |= {process.sentinel: worker for worker, process in self._processes.items()}
        try:
            workers = sorted({of[one] for one in wait(list(of), seconds)})  # type: ignore[index]
        except (OSError, ValueError):
            if self._closed:  # by another thread, meanwhile
                raise RequestError("the workers have been ended") from None
            raise
        return [event for worker in workers for event in self._news(worker)]

    def end(self, worker: int) -> None:
        """Kill it, if it is there."""
        with self._lock:
            process, pipe = self._processes.pop(worker, None), self._pipes.pop(worker, None)
        if process is not None and pipe is not None:
            process.kill()
            process.join()
            pipe.close()

    def close(self) -> None:
        """Kill all; no other begins, whatever another thread is about."""
        with self._lock:
            self._closed = True
            for process in self._processes.values():  # all at once: each takes a while to give its memory back
                process.kill()
            for worker in list(self._processes):
                self.end(worker)

    def ids(self) -> list[int]:
        """The system's numbers of the processes that there are."""
        return [process.pid for process in self._processes.values()]

    def _news(self, worker: int) -> list[Event]:
        """All messages that are there; then, where the process has ended, that and how."""
        events, pipe, process = [], self._pipes.get(worker), self._processes.get(worker)
        if pipe is None or process is None:
            return []
        ended = not process.is_alive()
        with contextlib.suppress(EOFError, OSError):  # its end of the pipe is closed, perhaps within a message
            while pipe.poll():
                kind, number, value = pipe.recv()
                if kind == "ends":
                    self._reasons[worker] = value
                    continue
                events.append(Event(worker, kind, value, number))
        if ended and not any(event.kind == "refused" for event in events):
            self.end(worker)
            events.append(Event(worker, "died", self._reasons.pop(worker, "") or ended_how(process.exitcode)))
        return events


def _context() -> Any:
    """Forks of a server; where there are none, as on Windows, processes that import everything themselves."""
    kinds = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")


def ended_how(status: int | None) -> str:
    """How a process ended, as the rest of a sentence.

    >>> ended_how(-9), ended_how(-11), ended_how(1)
    ('was killed (SIGKILL), as happens where memory runs out', 'crashed (SIGSEGV)', 'ended with status 1')
    """
    if status is None or status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed ({name}), as happens where memory runs out" if name == "SIGKILL" else f"crashed ({name})"


def _serve(job: Job, pipe: Connection) -> None:
    """The life of a worker."""
    from rarevox.compiled.team import take_own_team  # with PyTorch, which whoever asks for workers need not have

    take_own_team()  # the server has imported modules and computed nothing
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's Ctrl-C the process that hands out the work decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    show_logs_visibly()
    inbox, lock = Inbox(), threading.Lock()

    def tell(kind: str, number: int = -1, value: Any = None) -> None:
        with lock:
            pipe.send((kind, number, value))

    def listen() -> None:
        try:
            while True:
                inbox.put(pipe.recv())
        except (EOFError, OSError):  # whoever hands out the work is gone: nobody will hear of a result
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    try:
        worker = job.open()
    except RequestError as error:
        tell("refused", -1, str(error))
        os._exit(_REFUSED)
    except Exception as error:  # any other reason is told as one too; a traceback would stand between progress bars
        tell("refused", -1, f"a worker cannot begin: {reason_of(error)}")
        os._exit(_REFUSED)
    tell("ready")
    try:
        worker.work(iter(inbox), lambda number, result: tell("done", number, result))
    except Exception as error:
        tell("ends", -1, f"ended: {reason_of(error)}")
        os._exit(1)
