"""A file that grows by one JSON line for each scan, and is whole up to its last line whatever ends the process."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.files import json_line

try:
    import fcntl
except ImportError:  # elsewhere than on POSIX a journal's owner is known by its heartbeat alone
    fcntl = None  # type: ignore[assignment]

FOLDER = "journal"
"""In the folder of the predictions; holds a file for each call that wrote there."""
SUFFIX = ".jsonl"
FORM = 1
HEARTBEAT_SECONDS = 20.0
_MOST_IN_A_SYNC = 4096


class Journal:
    """The journal of one call. No two processes write one file, so nothing interleaves, on a network's disk neither.

    A thread writes the lines in order, as many as there are by then in one ``write`` in append mode, and syncs the file
    (one line, where scans take longer than a sync); only when a line is on the disk is its ``then`` called. The
    file is locked (``flock``) as long as its process lives and its time of change moves on every 20 s: by these others
    tell a living owner.

    Where the disk is full, what was written of a line is cut off again, and the line waits for the next one. Where the
    folder was moved away, the journal is written anew at its place.

    Args:
        folder: of the predictions.
        header: what the first line says besides the form, the id and who writes.
        name: its id; a new one where None.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], name: str | None = None) -> None:
        self.folder, self.id = folder, name or new_id()
        self.path = folder / FOLDER / f"{self.id}{SUFFIX}"
        self.error = ""
        self._lines: queue.Queue[tuple[bytes, Callable[[], None] | None] | None] = queue.Queue(_MOST_IN_A_SYNC)
        self._waiting: list[tuple[bytes, Callable[[], None] | None]] = []
        self._file = self._opened()
        said = {"journal": FORM, "id": self.id, "boot": boot_id(), "pid": os.getpid(), "time": time.time(), **header}
        self._write(_line(said))
        os.fsync(self._file)
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._run, name="journal", daemon=True)
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._writer.start()
        self._heart.start()

    def append(self, entry: Mapping[str, Any], then: Callable[[], None] | None = None) -> None:
        """Write a line; returns at once, and only waits where thousands of lines have not been written yet.

        Args:
            entry: plain data; NaN and infinities become null.
            then: is called, in a thread of the journal's, when the line is on the disk.
        """
        self._lines.put((_line(entry), then))

    def close(self) -> str:
        """Write what is left; why it could not be, or nothing."""
        if not self._ended.is_set():
            self._lines.put(None)
            self._writer.join()
            self._ended.set()
            os.close(self._file)
        return self.error

    def _opened(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        file = os.open(self.path, flags, 0o666)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: the heartbeat remains
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def _write(self, line: bytes) -> None:
        """One line or several, whole or not at all.

        Raises:
            OSError: no room.
        """
        before = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(28, os.strerror(28))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, before)
            raise

    def _follow(self) -> None:
        """Write everything anew at the journal's place where the file that was there is gone."""
        here = os.fstat(self._file)
        with contextlib.suppress(OSError):
            there = self.path.stat()
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
        content = os.pread(self._file, here.st_size, 0)
        moved, self._file = self._file, self._opened()
        os.close(moved)
        if content:
            self._write(content)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._lines.get()]
            while len(batch) < _MOST_IN_A_SYNC:
                try:
                    batch.append(self._lines.get_nowait())
                except queue.Empty:
                    break
            ended = None in batch
            self._waiting += [one for one in batch if one is not None]
            self._flush()

    def _flush(self) -> None:
        written, self.error = 0, ""
        try:
            self._follow()
            written = self._written()
            os.fsync(self._file)
        except OSError as error:
            self.error = f"the journal was not written: {error.strerror or error}"
        done, self._waiting = self._waiting[:written], self._waiting[written:]
        for _, then in done:
            if then is not None:
                then()

    def _written(self) -> int:
        """Write what waits, or where there is no room for all, line by line as much as there is room for; how many."""
        with contextlib.suppress(OSError):
            self._write(b"".join(line for line, _ in self._waiting))
            return len(self._waiting)
        for number, (line, _) in enumerate(self._waiting):
            try:
                self._write(line)
            except OSError as error:
                self.error = f"the journal was not written: {error.strerror or error}"
                return number
        return len(self._waiting)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _line(entry: Mapping[str, Any]) -> bytes:
    return json_line(entry).encode("utf-8", "backslashreplace") + b"\n"


def new_id() -> str:
    """The name of a call: when it began, where, its process.

    >>> import re
    >>> bool(re.fullmatch(r"\\d{8}T\\d{12}-[\\w-]*-\\d+", new_id()))
    True
    """
    now = time.time_ns()
    host = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in socket.gethostname())[:40]
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now // 10**9))}{now // 1000 % 10**6:06d}-{host}-{os.getpid()}"


def boot_id() -> str:
    """What tells one running system from another: two processes of one see each other's locks at once."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
