"""Files as streams that end where their volume does, whether or not they are compressed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rarevox.transforms.reading.content import GZIP, first_bytes
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import (
    SLACK_BYTES,
    open_regular,
    require_declared,
    require_memory,
    require_regular,
)

_CHUNK = 1 << 20


@contextmanager
def volume_stream(path: Path, end: int, what: str, held: int) -> Iterator[tuple[BinaryIO, bool]]:
    """The file up to where its volume ends, and whether it goes on far beyond.

    A compressed one is inflated a little further, so that the checksum at its end is compared: nibabel stops at the
    last voxel, and flipped bits would pass.

    Args:
        path: of the file with the voxels.
        end: the byte, inflated, at which they end.
        what: the voxels in words, for messages.
        held: bytes of the array that is made of them.

    Raises:
        ScanError: the file is shorter, or the memory too small.
    """
    present, compressed = require_volume(path, end, what)
    require_memory(path, held + (end if compressed else 0), what)
    with open_regular(path) as handle:
        if not compressed:
            yield handle, present > end + SLACK_BYTES
            return
        content, goes_on = inflated(handle, end + SLACK_BYTES)
        size = content.getbuffer().nbytes
        if size < end:
            raise ScanError(f"{path} is truncated: it inflates to {size} bytes of the {end} that {what} take")
        yield content, goes_on


def require_volume(path: Path, end: int, what: str) -> tuple[int, bool]:
    """The size of a file that can hold a volume, and whether it is compressed; the arguments are `volume_stream`'s.

    Raises:
        ScanError: it cannot.
    """
    present, compressed = require_regular(path).st_size, first_bytes(path, 2) == GZIP
    require_declared(path, end, present, what, compressed=compressed)
    return present, compressed


@contextmanager
def small_stream(path: Path, absent: bytes | None = None) -> Iterator[BinaryIO]:
    """A small file beside the voxels, inflated where it is compressed; ``absent`` stands for one that is not there."""
    if absent is not None and not path.exists():
        yield io.BytesIO(absent)
        return
    compressed = first_bytes(path, 2) == GZIP
    with open_regular(path) as handle:
        yield inflated(handle, SLACK_BYTES)[0] if compressed else handle


def inflated(handle: BinaryIO, limit: int) -> tuple[io.BytesIO, bool]:
    """The first ``limit`` bytes of compressed data, and whether there are more; without more, the checksum is compared.

    >>> content, goes_on = inflated(io.BytesIO(gzip.compress(b"volume and more")), 6)
    >>> content.read(), goes_on
    (b'volume', True)
    """
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=handle) as stream:
        while (left := limit - content.tell()) > 0 and (block := stream.read(min(left, _CHUNK))):
            content.write(block)
        goes_on = content.tell() == limit and bool(stream.read(1))
    content.seek(0)
    return content, goes_on
