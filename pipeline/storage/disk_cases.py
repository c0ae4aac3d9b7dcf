"""Prepared cases in memory-mapped files that worker processes, processes of one training and later runs share."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from rarevox.pipeline.console import console
from rarevox.pipeline.storage.entry import TornEntryError, open_entry, write_entry
from rarevox.pipeline.storage.keys import ContentHashes, configuration_key, describe, digest
from rarevox.pipeline.storage.prepare_case import compact, index_case
from rarevox.pipeline.storage.prune import CONTENTS, LOCKS, mark_used, prune
from rarevox.pipeline.storage.readable import LeftOut, each, require_sound
from rarevox.pipeline.storage.stored_index import can_store, index_arrays, index_from
from rarevox.pipeline.words import counted

try:
    import fcntl
except ImportError:  # not on Windows; two processes may then prepare the same case, and one result is kept
    fcntl = None  # type: ignore[assignment]


IN_USE = "in-use"
"""The lock that whoever has cases open shares, and whoever removes some must have alone."""


class DiskCases(Sequence[dict[str, Any]]):
    """Cases as dictionaries of memory-mapped tensors; a patch is read without reading its volume.

    Every case is prepared once and stored in ``folder`` under a name that tells all it depends on
    (:mod:`rarevox.pipeline.storage.keys`); its index is stored apart, so that another patch size or sampler makes a new
    index only. Any number of processes may fill one folder at once: each case is prepared by one of them. Damaged
    entries are made anew; a case that cannot be read is left out and told. Where nothing can be written (disk full, no
    permission), the remaining cases are held in memory, and one line says so.

    Before anything is prepared, entries that were not used for long are removed
    (:mod:`rarevox.pipeline.storage.prune`), unless another process holds cases of this folder open: as long as this
    object lives, nothing is removed by others.

    Args:
        data: the cases, file names by key.
        transform: the deterministic transforms.
        indexer: adds the sampler's index to a prepared case; None for none.
        folder: may be shared by runs and folds, and deleted when nothing runs.
        keep_days: entries that nothing has opened for longer are removed; None keeps them.
        limit_gb: of the folder when this begins, in GB; the entries unused for longest are removed; None for no limit.
        image_type: of floating-point volumes, float32 or float16 (half the space and reading; patches are float32).
        workers: threads that prepare cases.
        channels: of a scan; one with others is left out.

    Attributes:
        left: ``{"case", "reason"}`` of each case that was left out.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[Any], Any],
        indexer: Callable[[Any], dict[str, Any]] | None = None,
        *,
        folder: str | Path,
        image_type: torch.dtype = torch.float32,
        workers: int = 2,
        keep_days: float | None = None,
        limit_gb: float | None = None,
        channels: int | None = None,
    ) -> None:
        self.data = list(data)
        self.transform = transform
        self.indexer = indexer
        self.folder = Path(folder)
        self.image_type = image_type
        self.channels = channels
        self._memory: dict[int, dict[str, Any]] = {}
        self._open: dict[int, dict[str, Any]] = {}
        self._words = threading.Lock()
        self._full = False
        left = LeftOut("training cases")
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            self.names = self._names(pool, left)
            self._in_use = self._claim(keep_days, limit_gb)
            self._fill(pool, left)
        self._leave_out(left)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: Any) -> Any:
        """The case, opened when it is first asked for."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        found = self._memory.get(number) or self._open.get(number)
        if found is None:
            found = self._prepared(range(len(self))[number], wait=True)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """A process that is started anew opens the files itself."""
        return {**self.__dict__, "_open": {}, "_words": None, "_in_use": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _words=threading.Lock())

    def _leave_out(self, left: LeftOut) -> None:
        """Count the cases anew without those that cannot be read."""
        kept = left.kept(self.data)
        self.left = left.rows(self.data)
        self.data, self.names = [self.data[number] for number in kept], [self.names[number] for number in kept]
        places = {number: place for place, number in enumerate(kept)}
        self._memory = {places[number]: case for number, case in self._memory.items()}
        self._open = {places[number]: case for number, case in self._open.items()}

    def _names(self, pool: ThreadPoolExecutor, left: LeftOut) -> list[tuple[str, str]]:
        """For each case the name of its volumes and that of its index; empty ones where its files cannot be read."""
        contents = ContentHashes(self.folder / CONTENTS)
        prepared = configuration_key(self.transform, image_type=str(self.image_type))
        indexed = digest(describe(self.indexer))

        def named(number: int) -> tuple[str, str]:
            content = left.tried(number, lambda: contents.of_case(self.data[number]))
            name = digest([prepared, content])[:40]
            return ("", "") if content is None else (f"case-{name}", f"index-{digest([name, indexed])[:40]}")

        return list(pool.map(named, range(len(self))))

    def _fill(self, pool: ThreadPoolExecutor, left: LeftOut) -> None:
        """Open every case, preparing those that are not there; cases that another process prepares come last."""
        named = [number for number in range(len(self)) if number not in left.reasons]
        missing = [number for number in named if not self._stored(number)]
        if not missing:
            return
        console.print(f"cache: preparing {len(missing)} of {counted(len(self), 'case')} in {self.folder}")

        def prepared(number: int, *, wait: bool = False) -> Any:
            return left.tried(number, lambda: self._prepared(number, wait=wait))

        first = each(pool, prepared, missing, "preparing cases")
        waiting = [n for n, found in zip(missing, first, strict=True) if found is None and n not in left.reasons]
        list(pool.map(lambda number: prepared(number, wait=True), waiting))

    def _stored(self, number: int) -> dict[str, Any] | None:
        """The case with its index if both are stored and whole."""
        try:
            case = self._read(number)
            if self.indexer is not None:
                arrays, facts = open_entry(self.folder / self.names[number][1])
                case[facts["key"]] = index_from(arrays, facts)
        except (FileNotFoundError, TornEntryError):
            return None
        self._open[number] = case
        for name in self.names[number]:
            mark_used(self.folder / name)
        return case

    def _read(self, number: int) -> dict[str, Any]:
        arrays, facts = open_entry(self.folder / self.names[number][0])
        return {**facts, **arrays, "case": self.data[number].get("case", str(number))}

    def _prepared(self, number: int, *, wait: bool) -> dict[str, Any] | None:
        """The case, prepared here if need be; None where another process is at it and ``wait`` is False."""
        found = self._stored(number)
        if found is not None:
            return found
        with self._lock(self.names[number][0], wait) as mine:
            if not mine:
                return None
            return self._stored(number) or self._make(number)

    def _make(self, number: int) -> dict[str, Any]:
        """Prepare what is missing of a case and store it, or hold it in memory."""
        volumes, index = (self.folder / name for name in self.names[number])
        try:
            case = self._read(number)
        except (FileNotFoundError, TornEntryError):
            found = self.transform(self.data[number])
            require_sound(found, self.channels)
            prepared = compact(found, self.image_type)
            arrays = {key: value for key, value in prepared.items() if isinstance(value, torch.Tensor)}
            case = prepared
            if self._store(volumes, arrays, {}):
                case = self._read(number)
        if self.indexer is None:
            self._keep(number, case, stored=volumes.exists())
            return case
        case, key = index_case(case, self.indexer)
        stored = False
        if volumes.exists() and can_store(case[key]):
            listed, facts = index_arrays(case[key])
            stored = self._store(index, listed, {**facts, "key": key})
        found = self._stored(number) if stored else None
        self._keep(number, found or case, stored=found is not None)
        return found or case

    def _keep(self, number: int, case: dict[str, Any], *, stored: bool) -> None:
        (self._open if stored else self._memory)[number] = case

    def _store(self, folder: Path, arrays: Mapping[str, Any], facts: dict[str, Any]) -> bool:
        """Write an entry in place of a damaged one; False, said once, where that cannot be done."""
        try:
            _remove(folder)
            write_entry(folder, arrays, facts)
            return True
        except OSError as error:
            with self._words:
                if not self._full:
                    console.say(
                        "[yellow]cache: {} cannot be written ({}); cases that are not stored are held in memory[/]",
                        self.folder,
                        error.strerror or error,
                    )
                self._full = True
            return False

    def _claim(self, keep_days: float | None, limit_gb: float | None) -> Any:
        """Remove what is not needed if nothing else uses the folder, and hold it in use from now on."""
        if fcntl is None:
            return None
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            handle = (self.folder / LOCKS / IN_USE).open("w")
        except OSError:
            return None
        with contextlib.suppress(OSError):  # used by others, or a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = {name for names in self.names for name in names}
            freed = prune(self.folder, mine, _remove, days=keep_days, limit_gb=limit_gb)
            if freed:
                console.print(f"cache: {freed / 1e9:.1f} GB that nothing had used removed from {self.folder}")
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        return handle

    @contextlib.contextmanager
    def _lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Be the only process that prepares this case; a process that dies lets go."""
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            handle = (self.folder / LOCKS / name).open("w")
        except OSError:
            yield True
            return
        with handle:
            if fcntl is not None:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
                except OSError:  # a file system without locks: the rename alone keeps entries whole
                    pass
            for left in self.folder.glob(f".{name}.*.part"):
                _remove(left)
            yield True


def _remove(folder: Path) -> None:
    """Take an entry away under another name first, so that it is never seen half removed."""
    if folder.exists():
        away = folder.with_name(f".{folder.name.lstrip('.')}.removed.part")
        shutil.rmtree(away, ignore_errors=True)
        folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)
