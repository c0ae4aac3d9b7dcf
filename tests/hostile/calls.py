"""A call of the command line in a process with limits: its status, what it said, how long it took, what it wrote."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.trial import MEMORY_BYTES, Told, Trial

SECONDS = 20.0
"""Of computing that a call may take; a hang is told by the clock of :data:`tests.hostile.trial.SECONDS`."""
ASKED = "call.json"


@dataclass(frozen=True)
class Called:
    """What a call came to.

    Attributes:
        status: of the process; None where another exception than those for users was raised, or it died or hung.
        seconds: of computing.
        said: standard output and standard error.
        peak_bytes: by which memory rose.
        touched: what was made, changed or removed outside of the output.
    """

    status: int | None
    seconds: float
    said: str
    peak_bytes: int
    touched: tuple[str, ...]


def call(arguments: Sequence[str | Path], home: Path, output: Path | None) -> Called:
    """Call the command line from an empty folder below ``home``, everything under which but the output must stay as it
    is, and hold the call to what every call is held to: no traceback, no hang, bounded memory, nothing outside.
    """
    away = home.parent / f"{home.name}-call"
    (away / "here").mkdir(parents=True, exist_ok=True)
    (away / ASKED).write_text(json.dumps([os.fspath(one) for one in arguments]))
    before = _state(home, output)
    with Trial(calling) as trial:
        told = trial(away)
    after = _state(home, output)
    touched = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    touched += [str(path) for path in (away / "here").iterdir()]
    status, seconds = told.facts or (None, 0.0)
    called = Called(status, seconds, told.sentence, told.peak_bytes, tuple(touched))
    assert told.outcome == "ended", (told.outcome, told.sentence[-3000:])
    assert called.status in (0, 1, 2), called.said[-3000:]
    assert "Traceback" not in called.said, called.said[called.said.index("Traceback") :][:3000]
    assert not called.touched
    assert called.seconds < SECONDS
    assert called.peak_bytes < MEMORY_BYTES
    return called


def calling(away: Path) -> Told:
    """The stage of a trial: the call that is asked for in a folder."""
    import torch

    from rarevox.pipeline.cli import main

    torch.set_num_threads(1)
    arguments = json.loads((away / ASKED).read_text())
    os.chdir(away / "here")
    status: Any = 0
    with _heard(away / "said"):
        try:
            main(arguments)
        except SystemExit as end:
            status = end.code
    spent = sum(os.times()[:4])
    return Told("ended", (away / "said").read_text(encoding="utf-8", errors="backslashreplace"), (status, spent))


@contextlib.contextmanager
def _heard(file: Path) -> Iterator[None]:
    """What libraries written in C say too goes to the file."""
    kept = [os.dup(number) for number in (1, 2)]
    with file.open("wb") as handle:
        for number in (1, 2):
            os.dup2(handle.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)


def _state(home: Path, output: Path | None) -> dict[str, Any]:
    """Every entry below a folder with what would change if it were written to."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(home):
        folders[:] = [name for name in folders if Path(folder, name) != output]
        for name in [*folders, *files]:
            state = os.lstat(f"{folder}/{name}")
            changed = None if name in folders else state.st_mtime_ns
            found[f"{folder}/{name}"] = (state.st_mode, state.st_ino, state.st_size if changed else 0, changed)
    return found
