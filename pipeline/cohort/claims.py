"""Who is at which scan: a small file for each scan in work, so that several calls share one cohort."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from rarevox.pipeline.cohort.journal import FOLDER
from rarevox.pipeline.cohort.owners import STALE_SECONDS

CLAIMS = "claims"
_LOCK = ".claims.lock"
_MEMORY_SECONDS = 1.0


class Claims:
    """The claims of one call. Two operations a scan: a link is made, which fails where there is one, and removed
    when the row is on the disk.

    A scan is taken before it is read and given back when its row is in the journal; so whoever takes it next, and looks
    into the journals only then, finds the row. The claim of a call that has ended without giving it back passes to the
    next one that asks, with the number of calls that ended at it.

    Args:
        folder: of the predictions.
        owner: this call, the id of its journal.
        lives: tells of another owner whether it is at work.
    """

    def __init__(self, folder: Path, owner: str, lives: Callable[[str], bool]) -> None:
        self.folder, self.owner = folder / FOLDER / CLAIMS, owner
        self.folder.mkdir(parents=True, exist_ok=True)
        self._folder = f"{self.folder}{os.sep}"
        self._lives = lives
        self._known: dict[str, tuple[float, bool]] = {}
        self._own: dict[str, str] = {}
        self._files: set[int] = set()

    def take(self, case: str) -> int | None:
        """Claim a scan: how many calls ended at it before, or None where a living one has it."""
        path = self._path(case)
        try:
            self._make(path, case, 0)
            return 0
        except FileExistsError:
            pass
        if not self._is_dead(path):
            return None
        with FileLock(self.folder.parent / _LOCK):
            if not Path(path).exists():
                return self.take(case)
            if not self._is_dead(path):
                return None
            ended = self._read(path)[1] + 1
            # Never away in between, when somebody who asks without the lock would find it free and not count the end.
            beside = self.folder / f".{self.owner}.{Path(path).name}"
            self._make(str(beside), case, ended)
            beside.replace(path)
            self._own[case] = path
            return ended

    def give_back(self, case: str) -> None:
        """Remove the claim."""
        path = self._own.pop(case, "")
        if path:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 (see _path)

    def give_back_all(self) -> None:
        """Remove every claim that this call has, of scans that it will not do."""
        for case in list(self._own):
            self.give_back(case)
        for ended in self._files:
            (self.folder / f".{self.owner}.{ended}").unlink(missing_ok=True)
        self._files.clear()

    def _path(self, case: str) -> str:
        """A text, since millions of them as paths of pathlib would be a third of the bookkeeping's time."""
        return self._folder + hashlib.sha256(case.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    def _make(self, path: str, case: str, ended: int) -> None:
        """A link to a file of this call's own, which says whose it is: it is there whole or not at all, costs no new
        file, and is exclusive on a network's disk too. Where there are no links, a file."""
        try:
            os.link(self._said(ended), path)
        except FileExistsError:
            raise
        except OSError:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            try:
                os.write(file, self._text(ended))
            finally:
                os.close(file)
        self._own[case] = path

    def _said(self, ended: int) -> str:
        """The file that claims of this call are links to."""
        path = f"{self._folder}.{self.owner}.{ended}"
        if ended not in self._files:
            Path(path).write_bytes(self._text(ended))
            self._files.add(ended)
        return path

    def _text(self, ended: int) -> bytes:
        return json.dumps({"owner": self.owner, "ended": ended}).encode()

    def _read(self, path: str) -> tuple[str, int]:
        """Owner of a claim, and how many ended at the scan before; empty where the claim is not whole (yet)."""
        try:
            content = json.loads(Path(path).read_bytes()[:4096])
            return str(content["owner"]), int(content["ended"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", 0

    def _is_dead(self, path: str) -> bool:
        owner, _ = self._read(path)
        if owner == self.owner:
            return False
        if not owner:
            with suppress(OSError):
                return time.time() - Path(path).stat().st_mtime > STALE_SECONDS
            return False
        told, alive = self._known.get(owner, (-_MEMORY_SECONDS, False))
        if time.monotonic() - told > _MEMORY_SECONDS:
            alive = self._lives(owner)
            self._known[owner] = (time.monotonic(), alive)
        return not alive


def clear_sources(folder: Path) -> None:
    """Remove the files that dead calls' claims are links to; the claims stay, and tell of the scans in work."""
    for path in (folder / FOLDER / CLAIMS).glob(".*"):
        path.unlink(missing_ok=True)
