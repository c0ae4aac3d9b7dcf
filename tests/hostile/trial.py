"""A process with limits of its own, through which inputs are pushed; the next one starts where one died or hung."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

# The server of forks, which has imported the libraries; see `tests/forked.py` and `tests/conftest.py`.
_server = multiprocessing.get_context("forkserver")

MEMORY_BYTES = 1_500_000_000
"""What a trial may take besides what the libraries have."""

SECONDS = 120.0
"""After so long a trial hangs; sound ones take a hundredth of a second."""


@dataclass(frozen=True)
class Told:
    """What became of an input.

    Attributes:
        outcome: ``read``, ``warned`` or ``refused``; ``raised`` with another exception than the reader's own;
            ``died`` or ``hung``.
        sentence: why, or the warnings.
        facts: of what was read.
        peak_bytes: by which the trial's memory rose beyond what the process had taken before.
    """

    outcome: str
    sentence: str = ""
    facts: Any = None
    peak_bytes: int = 0


Stage = Callable[[Path], Told]


class Trial:
    """Pushes one path after another through a stage.

    Args:
        stage: a function of a module, called in the process with limits.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, path: Path) -> Told:
        """What becomes of a path."""
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        assert self._process is not None
        self._pipe.send(os.fspath(path))
        if not self._pipe.poll(SECONDS):
            self._end()
            return Told("hung")
        try:
            told: Told = self._pipe.recv()
        except EOFError:
            self._process.join()
            status = self._process.exitcode
            self._end()
            return Told("died", f"with status {status}")
        return told

    def _start(self) -> None:
        self._pipe, other = _server.Pipe()
        self._process = _server.Process(target=_serve, args=(self.stage, other), daemon=True)
        self._process.start()
        other.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(stage: Stage, pipe: Connection) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES,) * 2)
    with contextlib.suppress(EOFError):
        while True:
            path = Path(pipe.recv())
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                told = stage(path)
            except BaseException as error:
                told = Told("raised", f"{type(error).__name__}: {error}")
            rose = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            pipe.send(Told(told.outcome, told.sentence, told.facts, rose))


def reading(path: Path) -> Told:
    """The stage of reading: :func:`rarevox.transforms.reader.read_scan`, and its grid for itself."""
    import numpy as np

    from rarevox.transforms.reader import ScanError, read_grid, read_scan

    try:
        scan = read_scan(path)
    except ScanError as error:
        with contextlib.suppress(ScanError):
            read_grid(path)  # may know less, but raises nothing else
        return Told("refused", str(error))
    grid = read_grid(path)
    facts = {
        "affine": scan.affine,
        "spacing_mm": scan.spacing_mm,
        "voxel_ml": scan.voxel_ml,
        "shape": scan.array.shape,
        "same_grid": grid.shape == scan.shape and np.array_equal(grid.affine, scan.affine),
    }
    return Told("warned" if scan.warnings else "read", "; ".join(scan.warnings), facts)
