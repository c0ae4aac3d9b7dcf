"""Files that are asked what they are before they are opened: a pipe or a device may never answer."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.memory import available_bytes

MOST_INFLATED = 1032
"""Deflate's greatest ratio: a byte of a compressed file becomes no more than so many."""

SLACK_BYTES = 1 << 24
"""What may follow a volume in its file (MGH has tags there) and is read to its end, so that checksums are compared."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def require_regular(path: Path) -> os.stat_result:
    """What the system tells of a regular file, links followed; nothing is opened.

    Raises:
        ScanError: not there, a link to nothing, a folder, a named pipe, a socket or a device, or empty.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise ScanError(f"{path} is a link to a file that does not exist", check="missing-file") from None
        raise ScanError(f"{path} does not exist", check="missing-file") from None
    except PermissionError:
        raise ScanError(f"{path} may not be read: permission denied") from None
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long or holds a zero byte
        reason = getattr(error, "strerror", None) or error
        raise ScanError(f"{path} cannot be read: {reason}", check="missing-file") from None
    if not stat.S_ISREG(found.st_mode):
        what = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "no regular file")
        raise ScanError(f"{path} is {what}; expected a file")
    if found.st_size == 0:
        raise ScanError(f"{path} is empty (0 bytes)")
    return found


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe that took its place meanwhile neither blocks nor is read.

    Raises:
        ScanError: as :func:`require_regular`, and where permission is denied.
    """
    require_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except PermissionError:
        raise ScanError(f"{path} may not be read: permission denied") from None
    except OSError as error:
        raise ScanError(f"{path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ScanError(f"{path} is no regular file any more; expected a file")
    return os.fdopen(descriptor, "rb")


def require_declared(path: Path, declared: int, present: int, what: str, *, compressed: bool = False) -> None:
    """Refuse a header that declares more than its file can hold, before anything is allocated.

    Args:
        path: named in the message.
        declared: bytes of the file, or of what it inflates to, up to the volume's end.
        present: bytes of the file.
        what: what the header declares, in words.
        compressed: whether the file is deflated.

    Raises:
        ScanError: the file is truncated or its header wrong.
    """
    if declared > present * (MOST_INFLATED if compressed else 1):
        room = f"which {present} bytes of compressed data cannot hold" if compressed else f"of {present} in the file"
        raise ScanError(f"{path} is truncated or its header is wrong: it declares {what}, {declared} bytes, {room}")


def require_memory(path: Path, needed: float, what: str) -> None:
    """Refuse a volume that cannot be held.

    Args:
        path: named in the message.
        needed: bytes, at the least.
        what: what the header declares, in words.

    Raises:
        ScanError: more than there is.
    """
    free = available_bytes()
    if needed > free:
        raise ScanError(
            f"{path} declares {what}, which take {_gigabytes(needed)} GB in memory where {_gigabytes(free)} GB are free"
        )


def product(sizes: Iterable[int]) -> int:
    """The product of whole numbers of any size (NumPy's wraps around).

    >>> product((2**40, 2**40)) == 2**80
    True
    """
    return math.prod(int(size) for size in sizes)


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.3g}"
