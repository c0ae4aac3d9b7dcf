"""Moments of a call, counted in its operations on files, and what befalls it there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
"""Audit events of operations that change a folder; ``os.rename`` is that of ``os.replace`` too."""
STAGES = ("training.train", "preparation.prepare", "inference.predict", "evaluation.evaluate")
"""Modules that are imported before the first fork."""
SECONDS = 300.0
"""After so long a call hangs; a sound one takes a second."""
TORN_BYTES = 64
"""Of a file that is cut off: a lock's and a probe's content is shorter, every result longer."""
SMALL_BYTES = 1 << 14
"""Where memory has run out, objects smaller than this still find a place in what was freed; volumes do not."""


@dataclass(frozen=True)
class Call:
    """A command, and what befalls it.

    Attributes:
        arguments: of ``rarevox``.
        root: operations on files under it are counted.
        ill: a key of `ILLS`, or empty.
        moment: before which operation, from 1.
    """

    arguments: list[str]
    root: str
    ill: str = ""
    moment: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of it: its status as ``subprocess`` has it, what it said, and its operations on files."""

    status: int
    said: str
    operations: list[str]


def kill() -> None:
    """As by another's hand, or by the system that lacks memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    """As a batch system ends a job."""
    os.kill(os.getpid(), signal.SIGTERM)


def tear() -> None:
    """Killed in the midst of writing: the system ends the process at the first byte beyond `TORN_BYTES` of any file."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, TORN_BYTES)


def fill_disk() -> None:
    """From now on not a byte more can be written, by whatever library, and no folder be made."""
    _limit(resource.RLIMIT_FSIZE, 0)  # Python leaves the signal of it alone: writes fail


def exhaust_memory() -> None:
    """From now on the address space may not grow, and what was freed in it is taken, but for small pieces."""
    _limit(resource.RLIMIT_AS, 0)
    allocate = ctypes.CDLL(None).malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for size in (1 << 20, 1 << 17, SMALL_BYTES):
        while allocate(size):
            pass


def _limit(what: int, to: int) -> None:
    resource.setrlimit(what, (to, resource.getrlimit(what)[1]))


ILLS: dict[str, Callable[[], None]] = {
    "killed": kill,
    "terminated": terminate,
    "torn": tear,
    "disk full": fill_disk,
    "no memory": exhaust_memory,
}


class Watch:
    """Counts operations on files under a folder, and lets the ill befall the process before the one that is meant.

    Python tells of them itself (``sys.addaudithook``), before it does them: each opening, renaming, removing, making.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.count = 0
        self._ill = ILLS.get(call.ill)
        self._full = False
        self._log = os.open(f"{call.root}.operations", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._lock = threading.RLock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES and event != "open":
            return
        place = os.fspath(arguments[0]) if isinstance(arguments[0], (str, os.PathLike)) else ""
        if not place.startswith(self.call.root + os.sep):
            return
        if self._full and event == "os.mkdir":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
        with self._lock:
            self.count += 1
            due = self.count == self.call.moment
        if self.call.ill == "":
            written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            os.write(self._log, f"{'write' if written else event} {Path(place).name}\n".encode())
        if due and self._ill is not None:
            self._full = self.call.ill == "disk full"
            self._ill()


def operations(root: str | Path) -> list[str]:
    """Of the call that was watched last without an ill: ``EVENT NAME`` each."""
    return Path(f"{root}.operations").read_text().splitlines()


def run(call: Call) -> Outcome:
    """Run a command in a fork of this process, whose words come through a pipe: no limit on files holds them back."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.close(here)
            os.dup2(there, 1)
            os.dup2(there, 2)
            status = _command(call)
        except BaseException as error:
            os.write(2, f"escaped: {error!r}".encode())
        finally:
            os._exit(status)
    os.close(there)
    with os.fdopen(here, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Outcome(status, said, [] if call.ill else operations(call.root))


def _command(call: Call) -> int:
    """The command's status; the watch begins when its libraries are there."""
    import torch

    from rarevox.pipeline.cli import main

    # A fork makes PyTorch's pool of threads anew where a thread first asks for it, and not under a lock: two threads
    # that ask at once fail ("Invalid thread pool!"). So this one asks before there are others.
    torch.set_num_threads(1)
    if call.ill == "torn":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.addaudithook(Watch(call))
    try:
        main(call.arguments)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


class Nursery:
    """A process with everything imported that forks itself for each call: a fork costs hundredths of a second.

    It comes from the server of forks (``tests/forked.py``), and computes on one thread: what has threads cannot fork.
    """

    def __init__(self) -> None:
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("forkserver")
        self._pipe, self._process = here, server.Process(target=_serve, args=(there,))

    def __enter__(self) -> Nursery:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    def __call__(self, call: Call) -> Outcome:
        """Run a command."""
        self._pipe.send(call)
        if not self._pipe.poll(SECONDS):
            self._process.kill()
            raise TimeoutError(f"{call} hangs")
        outcome: Outcome = self._pipe.recv()
        return outcome


def _serve(pipe: Connection) -> None:
    warm()
    while (call := pipe.recv()) is not None:
        pipe.send(run(call))


def warm() -> None:
    """Import what the commands import when they run, and read what they read of this package."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    for module in ("tests.warm", *(f"rarevox.pipeline.{stage}" for stage in STAGES)):
        importlib.import_module(module)
    gc.freeze()
