"""Which calls are at work in a folder: those whose journals are locked, or were touched a moment ago."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.journal import FOLDER, SUFFIX, boot_id
from rarevox.pipeline.files import file_time

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

STALE_SECONDS = 120.0
"""A call on another machine of which nothing was seen for so long has ended; six heartbeats."""


def lives(folder: Path, owner: str, header: Mapping[str, Any]) -> bool:
    """Whether the call that wrote a journal is still at work.

    On one system the lock says so at once. On a network's disk a lock may be unknown to other machines; so a journal of
    another machine that can be locked is a dead call's only when its time of change stands still, by the clock of the
    file system.

    Args:
        folder: of the predictions.
        owner: the journal's id.
        header: its first line.
    """
    path = folder / FOLDER / f"{owner}{SUFFIX}"
    if is_locked(path):
        return True
    if header.get("boot") == boot_id() and fcntl is not None:
        return False
    try:
        return file_time(folder / FOLDER) - path.stat().st_mtime < STALE_SECONDS
    except OSError:
        return False


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a file."""
    if fcntl is None:
        return False
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(file)
    return False
