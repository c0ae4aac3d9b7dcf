"""SHA-256 sums of a run's configuration and weights, in the file that ``sha256sum -c`` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import clear_parts, text_bytes, write_text
from rarevox.pipeline.plain_data import read_text

SUMS_FILE = "sha256sums.txt"
COMING_FILE = "sha256sums.coming.txt"
"""The sums after what a call is about to write; it takes the place of the others when that is done."""
CHECKPOINTS = {"last.pt", "previous.pt", "damaged.pt"}
"""Of training, which change until it ends and are not handed on."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LARGEST = 1 << 20


def summed_files(run: Path) -> list[str]:
    """What the sums are of: all files in ``configs/``, and all in ``models/`` but the checkpoints of training.

    MONAI reads ``metadata.json`` with the configuration, and obeys what stands in it as it does the rest.
    """
    found = []
    for folder in ("configs", "models"):
        for path in (run / folder).rglob("*"):
            if path.is_file() and not path.name.startswith(".") and path.name not in CHECKPOINTS:
                found.append(path.relative_to(run).as_posix())
    return sorted(found)


def sum_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            total.update(part)
    return total.hexdigest()


def write_sums(run: Path) -> Path:
    """Write ``sha256sums.txt`` of a run as it is now; returns the file."""
    _write(run, {name: sum_of(run / name) for name in summed_files(run)})
    return run / SUMS_FILE


def read_sums(run: Path) -> dict[str, str]:
    """The sums that a run carries, by file name.

    A call that was killed while it wrote into the run has said before what it would write: files that are so have that
    sum, the others the one from before.

    Raises:
        RequestError: none, or lines of another form.
    """
    sums = _read(run / SUMS_FILE)
    if (run / COMING_FILE).is_file():
        coming = _read(run / COMING_FILE)
        sums |= {name: said for name, said in coming.items() if name in sums and _is(run / name, said)}
    return sums


def _read(file: Path) -> dict[str, str]:
    try:
        lines = read_text(file, _LARGEST).splitlines()
    except FileNotFoundError:
        raise RequestError(
            f"{file.parent} carries no {SUMS_FILE}; rarevox train writes it when a training ends, and for a run of an "
            "earlier version when that goes on (--resume)"
        ) from None
    found = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise RequestError(f"{file}, line {number}: expected a SHA-256 sum, two spaces and a file of the run")
        found[match[2]] = match[1]
    return found


@contextmanager
def keeping_sums(run: Path) -> Iterator[dict[str, str]]:
    """Write into a run and bring its sums up to date.

    Put the new texts, by file name within the run, into the mapping that this yields: they are written, and the sums
    after them, when the block ends. Killed in between, the run is as right as it was: what is coming is said in a file
    beside the sums first.

    Files that did not match their sums before keep the old ones: what someone changed is never made to look right. A
    run without sums gets none.
    """
    clear_parts(run, run / "configs")  # what a call that was killed here left
    before: dict[str, str] = read_sums(run) if (run / SUMS_FILE).is_file() else {}
    right = {name for name, said in before.items() if _is(run / name, said)}
    texts: dict[str, str] = {}
    yield texts
    coming = {name: hashlib.sha256(text_bytes(text)).hexdigest() for name, text in texts.items() if name in right}
    after = {name: sum_of(run / name) if name in right and (run / name).is_file() else before[name] for name in before}
    after |= coming
    anew = after != before or (run / COMING_FILE).is_file()
    if anew:
        _write(run, after, COMING_FILE)
    for name, text in texts.items():
        write_text(run / name, text)
    if anew:
        (run / COMING_FILE).replace(run / SUMS_FILE)


def forget_sums(run: Path) -> None:
    """Remove the sums of a run whose model is about to change."""
    for name in (COMING_FILE, SUMS_FILE):
        (run / name).unlink(missing_ok=True)


def _is(file: Path, said: str) -> bool:
    return file.is_file() and sum_of(file) == said


def _write(run: Path, sums: dict[str, str], name: str = SUMS_FILE) -> None:
    write_text(run / name, "".join(f"{value}  {file}\n" for file, value in sums.items()))
