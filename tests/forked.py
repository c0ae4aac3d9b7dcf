"""Python in a fork of a process that has imported the libraries: their import costs seconds, a fork a hundredth.

For tests of what a process does (signals, exit status, standard error, several ranks). A test of how a process starts,
or of what it imports, needs ``subprocess``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

# What a server of forks imports before its first fork; `conftest.py` says so to multiprocessing.
LIBRARIES = ["monai.bundle", "torch.utils.tensorboard", "rarevox.pipeline.cli", "rarevox.pipeline.training.train"]
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

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def stderr(self) -> str:
        """What it has written to standard error by now."""
        return self._files[1].read_text() if self._files[1].exists() else ""

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end; the status of a signal is negative, as ``subprocess`` has it."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self.arguments, timeout, stderr=self.stderr())
        texts = [file.read_text() if file.exists() else "" for file in self._files]
        self._said.cleanup()
        assert self._process.exitcode is not None
        return subprocess.CompletedProcess(self.arguments, self._process.exitcode, *texts)


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
    if "OMP_NUM_THREADS" in env:  # which the libraries read when they were imported
        import torch

        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    multiprocessing.set_start_method(None, force=True)  # what it starts in its turn starts by the default way
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
