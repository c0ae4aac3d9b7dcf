"""One process at a time works on a cell, whichever call, machine or cluster it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

CLAIMS = "claims"


@contextmanager
def claimed(study: Path, cell: str) -> Iterator[bool]:
    """Whether the cell is this process's, for as long as the context lasts.

    The claim is the system's lock on a file (``flock``), which ends with the process that holds it: a killed one leaves
    nothing to clear away. The file itself stays, so that whoever waits for it and whoever comes later lock the same.

    Args:
        study: the folder of the study.
        cell: its name.

    Raises:
        OSError: the file cannot be made.
    """
    folder = study / CLAIMS
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{cell}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
