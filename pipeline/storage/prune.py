"""What a folder of prepared cases holds, and the removal of what nothing has used for long."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from rarevox.pipeline.storage.entry import LIST
from rarevox.pipeline.words import counted

DAY = 86400.0
PREFIXES = ("case-", "index-")
CONTENTS, LOCKS = "contents", "locks"


@dataclass(frozen=True)
class Stored:
    """One stored case or index: where, how many bytes on disk, when it was last opened (seconds of ``time.time``)."""

    path: Path
    size: int
    used: float

    @property
    def is_case(self) -> bool:
        """Whether it is a case's volumes; else an index."""
        return self.path.name.startswith(PREFIXES[0])


def stored_in(folder: Path) -> list[Stored]:
    """All entries of a cache, the one unused for longest first; an empty list where there is no cache."""
    found = []
    for prefix in PREFIXES:
        for path in folder.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # another process removes it
                size = sum(file.stat().st_size for file in path.iterdir())
                found.append(Stored(path, size, (path / LIST).stat().st_mtime))
    return sorted(found, key=lambda entry: (entry.used, entry.path.name))


def mark_used(entry: Path) -> None:
    """Note that an entry was opened now; where nothing can be written it stays as old as it was."""
    with contextlib.suppress(OSError):
        os.utime(entry / LIST)


def superfluous(
    entries: list[Stored], keep: Collection[str], *, days: float | None, limit_gb: float | None, now: float
) -> list[Stored]:
    """What is to go: entries that were not used for more than ``days``, then the oldest until the rest fits.

    Args:
        entries: the one unused for longest first.
        keep: names of entries that stay in any case.
        days: None for no such rule.
        limit_gb: of the whole folder, in GB (10⁹ bytes); None for no limit.
        now: seconds of ``time.time``.

    >>> old, new = Stored(Path("case-a"), 10**9, 0.0), Stored(Path("case-b"), 10**9, 9 * DAY)
    >>> [entry.path.name for entry in superfluous([old, new], (), days=5, limit_gb=None, now=10 * DAY)]
    ['case-a']
    """
    total, gone = sum(entry.size for entry in entries), []
    for entry in entries:
        old = days is not None and now - entry.used > days * DAY
        if entry.path.name not in keep and (old or (limit_gb is not None and total > limit_gb * 1e9)):
            gone.append(entry)
            total -= entry.size
    return gone


def prune(
    folder: Path,
    keep: Collection[str],
    remove: Callable[[Path], None],
    *,
    days: float | None = None,
    limit_gb: float | None = None,
) -> int:
    """Remove what is :func:`superfluous`, the notes of files that are gone, and what killed processes left behind.

    Args:
        folder: of the cache, which nothing else uses now.
        keep: names of entries that stay.
        remove: takes an entry's folder away.
        days: as :func:`superfluous` has it.
        limit_gb: likewise.

    Returns:
        Bytes of the entries that went.
    """
    freed, now = 0, time.time()
    for entry in superfluous(stored_in(folder), keep, days=days, limit_gb=limit_gb, now=now):
        with contextlib.suppress(OSError):
            remove(entry.path)
            freed += entry.size
            (folder / LOCKS / entry.path.name).unlink(missing_ok=True)
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if now - part.stat().st_mtime > DAY:
                shutil.rmtree(part)
    for note in (folder / CONTENTS).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if not Path(json.loads(note.read_text(encoding="utf-8"))["stamp"][0]).exists():
                note.unlink()
    return freed


def describe_cache(folder: Path, days: float = 30) -> str:
    """The size of a cache in a line: GB, cases, indices, and how much of it was not used for so many days.

    >>> describe_cache(Path("absent"))
    'nothing is stored'
    """
    entries = stored_in(folder)
    if not entries:
        return "nothing is stored"
    cases = sum(entry.is_case for entry in entries)
    size = sum(entry.size for entry in entries) / 1e9
    old = sum(entry.size for entry in entries if time.time() - entry.used > days * DAY) / 1e9
    unused = f", {old:.1f} GB of it not used for {counted(days, 'day')}" if old else ""
    return f"{size:.1f} GB, {counted(cases, 'case')} and {counted(len(entries) - cases, 'index', 'indices')}{unused}"
