"""Files that are either whole or absent: written beside their place, synced, then renamed."""

from __future__ import annotations

import contextvars
import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.plain_data import LARGEST_JSON, parse_json, read_text

_writes = itertools.count()


@contextmanager
def atomic(path: str | Path, *, keep: str | Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced and renamed onto ``path``, else removed.

    The temporary name keeps the suffix (``.nii.gz``) so that writers which look at it choose the right format, and is
    else short: wherever the final name fits, it does. The folder is synced too, so that the new name outlives a power
    cut.

    Args:
        path: the file to write.
        keep: a name in the same folder for the file that was at ``path`` before; at every moment one of the two is
            whole.

    Raises:
        OSError: no space, no permission, the folder has gone; ``path`` is then as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _part(path)
    try:
        yield temporary
        with _told_where_gone(temporary):
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            if keep is not None and path.exists():
                _keep(path, Path(keep))
            temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _told_where_gone(temporary: Path) -> Iterator[None]:
    """Say of a file that was written and is not there that its folder has changed, in place of two names."""
    try:
        yield
    except FileNotFoundError:
        if temporary.exists():
            raise
        reason = "the folder was moved or emptied meanwhile"
        raise FileNotFoundError(errno.ENOENT, reason, str(temporary.parent)) from None


def _part(path: Path) -> Path:
    """A name of this process's own beside ``path``, another one each time: threads may write one file at once."""
    last = path.name.lower().rsplit(".", 2)[1:]
    kept = last[-2:] if last[-1:] == ["gz"] else last[-1:]
    return path.with_name(".".join([f".{os.getpid()}.part.{next(_writes)}", *(one for one in kept if len(one) <= 8)]))


def _keep(path: Path, name: Path) -> None:
    """Give the file at ``path`` the other name too, or where the file system has no links, instead."""
    linked = _part(path)
    try:
        os.link(path, linked)
        linked.replace(name)
    except OSError:
        path.replace(name)
    finally:
        linked.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder, where the system lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def clear_parts(*folders: str | Path) -> None:
    """Remove what killed writers left of their temporary files and folders in these folders; those of living processes
    stay."""
    for folder in folders:
        for path in Path(folder).glob(".*.part.*"):
            process = path.name.split(".")[1]
            if not process.isdigit() or _lives(int(process)):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def clear_parts_below(folder: str | Path) -> None:
    """:func:`clear_parts` in a folder and all folders in it, where nobody else can be writing: processes of other
    machines that share it would not be seen to live."""
    for place, _, _ in os.walk(folder):
        clear_parts(place)


def _lives(process: int) -> bool:
    """Whether another process of this number is there (one's own number was, in a container, an earlier process's)."""
    if os.name != "posix":  # elsewhere the question may end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8.

    Bytes of a file's name that are not UTF-8, which Python holds as lone surrogates, are written as ``\\udcff``: in
    JSON that is the escape of that very surrogate, so the name comes back whole.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(text_bytes(text))


def text_bytes(text: str) -> bytes:
    """What :func:`write_text` writes."""
    return text.encode("utf-8", "backslashreplace")


def write_json(path: str | Path, content: object) -> None:
    """Write ``content`` atomically as indented JSON (NaN and infinities become null, as JSON has none)."""
    write_text(path, json_text(content))


def json_text(content: object) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        RequestError: the file is missing, not JSON or beyond the bounds; the message names it.
    """
    try:
        return parse_json(read_text(path, LARGEST_JSON))
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except ValueError as error:
        raise RequestError(f"{path} cannot be read: {error}; write it again or restore it") from error


def finite(content: object) -> Any:
    """``content`` with every float that JSON cannot hold (NaN, infinities) replaced by None."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if hasattr(content, "item") and getattr(content, "ndim", 1) == 0:
        content = content.item()
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content


def json_line(content: object) -> str:
    """``content`` as JSON on one line; NaN and infinities become null.

    >>> json_line({"a": [1.5, float("nan")], "b": "ö"})
    '{"a":[1.5,null],"b":"ö"}'
    """
    try:
        return _LINE.encode(content)
    except ValueError:
        return _LINE.encode(finite(content))


def _plain(value: object) -> Any:
    """JSON for what the json module does not know: NumPy scalars and arrays, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def file_time(folder: str | Path) -> float:
    """Now, by the clock that gives the files of a folder their times: a file server's, where it is one's.

    Raises:
        OSError: the folder may not be written.
    """
    probe = Path(folder) / f".{os.getpid()}.part.{next(_writes)}"
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


_LINE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)

LOCK_FILE = ".rarevox.lock"
"""Of `rarevox.pipeline.locks`; like temporary files it may stay where a call was killed."""


def is_leftover(path: Path) -> bool:
    """Whether this is what a killed call may leave in a folder of its own: its lock, a file half written.

    >>> is_leftover(Path("run/.rarevox.lock")), is_leftover(Path("run/.12.part.0.json")), is_leftover(Path("run/.git"))
    (True, True, False)
    """
    return path.name == LOCK_FILE or re.match(r"\.\d+\.part\.", path.name) is not None


def entries_of(folder: Path) -> set[str]:
    """The names of what is in a folder, but for what a killed call may leave.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for name in (".12.part.0.json", "plan.yaml"):
    ...         (Path(place) / name).touch()
    ...     entries_of(Path(place))
    {'plan.yaml'}
    """
    return {entry.name for entry in folder.iterdir() if not is_leftover(entry)}


def _holds_nothing(folder: Path) -> bool:
    """Whether nothing but what a killed call may leave is in a folder, its folders included: a writer makes the folder
    of a file before the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     (Path(place) / "configs").mkdir()
    ...     (Path(place) / "configs" / ".12.part.0.yaml").touch()
    ...     _holds_nothing(Path(place))
    True
    """
    return all(
        is_leftover(entry) or (entry.is_dir() and not entry.is_symlink() and _holds_nothing(entry))
        for entry in folder.iterdir()
    )


_made_by_the_call: contextvars.ContextVar[list[Path] | None] = contextvars.ContextVar("made_by_the_call", default=None)


@contextmanager
def leaving_no_empty_folders() -> Iterator[None]:
    """At the end, take away the folders that :func:`claim_folder` made meanwhile in this thread and that are empty.

    So a call that is refused after it claimed its folder leaves nothing, however it ends.
    """
    made: list[Path] = []
    token = _made_by_the_call.set(made)
    try:
        yield
    finally:
        _made_by_the_call.reset(token)
        for folder in sorted(made, key=lambda one: len(one.parts), reverse=True):
            with suppress(OSError):  # holds something, or is gone
                folder.rmdir()


def _made(folder: Path) -> None:
    """Make a folder.

    Raises:
        RequestError: it cannot be made, with the place and the reason; choose another one.
    """
    if folder.is_dir():
        return
    if (made := _made_by_the_call.get()) is not None:
        made += [one for one in (folder.absolute(), *folder.absolute().parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        above = next((one for one in folder.absolute().parents if one.is_dir()), folder.parent)
        if isinstance(error, FileNotFoundError):  # what /proc and its like answer, though the folder above is there
            reason = "no folder can be made there"
        else:
            reason = error.strerror or str(error)
        raise RequestError(f"--output {folder} cannot be made in {above}: {reason}; choose another place") from error


def claim_folder(folder: str | Path, holds: Callable[[Path], bool], what: str) -> Path:
    """Make ``folder`` for writing, refusing one that already holds something else.

    Args:
        folder: the output folder.
        holds: tells of a non-empty folder whether it may be written into all the same.
        what: names what this stage writes, for the message.

    Raises:
        RequestError: the folder holds other files, is a file, or cannot be made or written.
    """
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise RequestError(f"--output {folder} is a file; give a folder")
        if folder.is_dir() and not _holds_nothing(folder) and not holds(folder):
            raise RequestError(
                f"--output {folder} already holds other files, and {what} is never written over them; "
                "give a new folder or empty this one"
            )
        _made(folder)
        probe = _part(folder / "a.probe")
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # of two machines that share a folder, processes of one number may meet here
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"cannot write into --output {folder}: {reason}; choose another folder") from error
    return folder
