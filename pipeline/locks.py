"""One call at a time in a folder: what two of them write would interleave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import LOCK_FILE

PATIENCE_SECONDS = 3.0
"""So long is waited for a lock: what a killed call started may outlive it by a moment."""


@contextmanager
def held(folder: str | Path, option: str = "--output", *, patience: float = 1.0) -> Iterator[Path]:
    """Hold a folder that exists, for as long as this call writes into it.

    The lock is the system's own on a file in the folder (``flock``): it ends with the process that holds it, however
    that ends, so a killed call leaves nothing that must be cleared away. The file goes when the call is done.

    Args:
        folder: where the call writes.
        option: that named it, for the message.
        patience: how many times :data:`PATIENCE_SECONDS` is waited where the folder is held for moments only.

    Raises:
        RequestError: another call holds the folder, or it may not be written.
    """
    file = Path(folder) / LOCK_FILE
    lock = FileLock(file, timeout=patience * PATIENCE_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"another call is writing into {option} {folder}{_by(file)}; wait until it ends, or give another folder"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"cannot write into {option} {folder}: {reason}; choose another folder") from error
    try:
        with suppress(OSError):  # on a full disk the lock holds all the same
            file.write_text(str(os.getpid()), encoding="ascii")
        yield Path(folder)
    finally:
        with suppress(OSError):  # while it is held: who waits for it sees that the file is no longer the folder's
            file.unlink()
        lock.release()


def _by(file: Path) -> str:
    try:
        process = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {process})" if process.isdigit() else ""
