"""Scans of the same content under several names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError

MODES = ("tell", "skip")
_PART_BYTES = 1 << 16
_THREADS = 8

Item = dict[str, Any]


def without_duplicates(items: Sequence[Item], left: Sequence[Item], mode: str) -> tuple[list[Item], list[Item]]:
    """The scans, those with the content of an earlier one marked or left out.

    The same content is every byte of all files (of a series: of its files by name). Files are compared by size first,
    then by their first and last 64 KiB, and read whole only where these agree.

    Args:
        items: entries of a data list.
        left: rows of what is no scan.
        mode: ``tell`` adds ``duplicate_of``, the first scan's name, which stands in the row; ``skip`` makes it a row
            ``ignored`` that says so, and the content is segmented once.

    Raises:
        RequestError: another mode.
    """
    if mode not in MODES:
        raise RequestError(f"--duplicates {mode} is neither {' nor '.join(MODES)}")
    first = _first_of(items)
    kept, rows = [], list(left)
    for at, item in enumerate(items):
        if at not in first:
            kept.append(item)
            continue
        earlier = str(items[first[at]]["case"])
        if mode == "tell":
            kept.append({**item, "duplicate_of": earlier})
        else:
            reason = f"the same content as {earlier}, to the byte; it is segmented once"
            rows.append({**item, "status": "ignored", "reason": reason})
    return kept, rows


def _first_of(items: Sequence[Item]) -> dict[int, int]:
    """Of each scan that is the copy of an earlier one, which."""
    alike: list[list[int]] = [list(range(len(items)))]
    for key in (_sizes, _parts, _whole):
        alike = [group for several in alike for group in _split(several, items, key)]
    return {at: group[0] for group in alike for at in group[1:]}


def _split(several: Sequence[int], items: Sequence[Item], key: Callable[[Sequence[Path]], Hashable]) -> list[list[int]]:
    """Groups of two and more with the same key, each in order."""

    def of(at: int) -> Hashable:
        try:
            return key(_files(items[at]))
        except OSError:  # a file that cannot be read is like no other; why, its own row will say
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        keys = list(pool.map(of, several))
    groups: dict[Hashable, list[int]] = {}
    for at, one in zip(several, keys, strict=True):
        if one is not None:
            groups.setdefault(one, []).append(at)
    return [group for group in groups.values() if len(group) > 1]


def _files(item: Item) -> list[Path]:
    image = item["image"]
    paths = [Path(file) for file in (image if isinstance(image, list) else [image])]
    return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def _sizes(files: Sequence[Path]) -> Hashable:
    return tuple(file.stat().st_size for file in files)


def _parts(files: Sequence[Path]) -> Hashable:
    return _digest(part for file in files for part in _ends(file))


def _whole(files: Sequence[Path]) -> Hashable:
    return _digest(block for file in files for block in _blocks(file))


def _ends(file: Path) -> Iterable[bytes]:
    with file.open("rb") as handle:
        yield handle.read(_PART_BYTES)
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - _PART_BYTES))
        yield handle.read(_PART_BYTES)


def _blocks(file: Path) -> Iterable[bytes]:
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            yield block


def _digest(blocks: Iterable[bytes]) -> bytes:
    total = hashlib.blake2b(digest_size=16)
    for block in blocks:
        total.update(block)
    return total.digest()
