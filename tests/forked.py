"""Python in a fork of a process that has imported the libraries: their import costs seconds, a fork a hundredth.

For tests of what a process does (signals, exit status, standard error, several ranks). A test of how a process starts,
or of what it imports, needs ``subprocess``.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import util
from multiprocessing.process import BaseProcess
from pathlib import Path

# What a server of forks imports before its first fork; `conftest.py` says so to multiprocessing.
LIBRARIES = [
    "monai.bundle",
    "torch.utils.tensorboard",
    "rarevox.pipeline.cli",
    "rarevox.pipeline.training.train",
    "tests.warm",
]
_server = multiprocessing.get_context("forkserver")


class Forked:
    """A process that runs as ``python ARGUMENTS`` would.

    Args:
        arguments: ``-c CODE …``, ``-m MODULE …`` or ``SCRIPT …``, as ``python`` takes them.
        cwd: its working directory; None keeps this one's.
        env: all of its environment; None takes this one's.
        new_session: it leads a process group of its own, which ``os.killpg(pid, …)`` reaches.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        self._said = tempfile.TemporaryDirectory(prefix="rarevox-forked-")
        self._files = [Path(self._said.name) / name for name in ("stdout", "stderr")]
        environment = dict(os.environ if env is None else env)
        work = (list(arguments), str(cwd or Path.cwd()), environment, list(map(str, self._files)), new_session)
        self._process: BaseProcess = _server.Process(target=_work, args=work)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.arguments = arguments
        _running.add(self)

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def stderr(self) -> str:
        """What it has written to standard error by now."""
        return self._files[1].read_text() if self._files[1].exists() else ""

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end; the status of a signal is negative, as ``subprocess`` has it."""
        self._process.join(timeout)
        _running.discard(self)
        if self._process.is_alive():
            self.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout, stderr=self.stderr())
        texts = [file.read_text() if file.exists() else "" for file in self._files]
        self._said.cleanup()
        assert self._process.exitcode is not None
        return subprocess.CompletedProcess(self.arguments, self._process.exitcode, *texts)


_running: set[Forked] = set()


def kill_all() -> None:
    """End those that nobody has waited for, as after a test that failed: Python would wait for them when it ends."""
    while _running:
        _running.pop().kill()


def run(
    arguments: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run([sys.executable, *arguments], capture_output=True, text=True)``, forked."""
    return Forked(arguments, cwd=cwd, env=env).wait(timeout)


def _work(arguments: list[str], cwd: str, env: dict[str, str], files: list[str], new_session: bool) -> None:
    """The fork: take the place of a fresh process, and run."""
    if new_session:
        os.setsid()
    for number, file in enumerate(files, start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # it was looked up in another environment
    import torch

    from rarevox.compiled.team import take_own_team

    take_own_team()  # the server has computed nothing
    gc.freeze()  # what was imported is no garbage, and stays shared
    if "OMP_NUM_THREADS" in env:  # which the libraries read when they were imported
        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    multiprocessing.set_start_method(None, force=True)  # what it starts in its turn starts by the default way
    _set_server_aside()
    with _interrupted_as_python_is():
        _run(arguments)


def _run(arguments: list[str]) -> None:
    first, *rest = arguments
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


@contextlib.contextmanager
def _interrupted_as_python_is() -> Iterator[None]:
    """An interrupt that nobody takes ends ``python`` with status 130 and a fork with 1."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _set_server_aside() -> None:
    """Fork what becomes the server of forks, should this process start one, before it does anything else.

    multiprocessing starts a server by ``python -c``, which imports the libraries once more. The fork has them, and is
    the same otherwise: a child of this process, in its group, that holds no descriptor but those that are passed.
    """
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        _become_server(there)
    there.close()
    start = util.spawnv_passfds

    def started(path: bytes, arguments: list[str], descriptors: Sequence[int]) -> int:
        code = arguments[-1]
        if here.fileno() < 0 or "multiprocessing.forkserver" not in code:  # a second one is started as always
            return start(path, arguments, descriptors)
        socket.send_fds(here, [json.dumps([code, list(descriptors)]).encode()], descriptors)
        here.close()
        return pid

    util.spawnv_passfds = started


def _become_server(there: socket.socket) -> None:
    """Wait to be asked, take the descriptors at the numbers that the code names, and run it; end where nobody asks."""
    status = 0
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a server does
        asked, received, _, _ = socket.recv_fds(there, 2**20, 16)
        if asked:
            code, wanted = json.loads(asked)
            above = max([*wanted, *(int(open_.name) for open_ in Path("/dev/fd").iterdir())]) + 1
            received = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in received]
            there.detach()
            os.closerange(3, above)
            for descriptor, number in zip(received, wanted, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # what its own forks get back
            exec(code, {"__name__": "__main__"})
    except SystemExit:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        os._exit(status)
