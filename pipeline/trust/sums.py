"""SHA-256 sums of a run's configuration and weights, in the file that ``sha256sum -c`` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import write_text
from rarevox.pipeline.plain_data import read_text

SUMS_FILE = "sha256sums.txt"
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

    Raises:
        RequestError: none, or lines of another form.
    """
    file = run / SUMS_FILE
    try:
        lines = read_text(file, _LARGEST).splitlines()
    except FileNotFoundError:
        raise RequestError(f"{run} carries no {SUMS_FILE}; rarevox train writes it when a training ends") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise RequestError(f"{file}, line {number}: expected a SHA-256 sum, two spaces and a file of the run")
        found[match[2]] = match[1]
    return found


@contextmanager
def keeping_sums(run: Path) -> Iterator[None]:
    """Bring the sums of a run up to date with what is written within the block.

    Files that did not match their sums before keep the old ones: what someone changed is never made to look right. A
    run without sums gets none.
    """
    before: dict[str, str] = read_sums(run) if (run / SUMS_FILE).is_file() else {}
    right = {name for name, said in before.items() if (run / name).is_file() and sum_of(run / name) == said}
    yield
    after = {name: sum_of(run / name) if name in right and (run / name).is_file() else before[name] for name in before}
    if after != before:
        _write(run, after)


def forget_sums(run: Path) -> None:
    """Remove the sums of a run whose model is about to change."""
    (run / SUMS_FILE).unlink(missing_ok=True)


def _write(run: Path, sums: dict[str, str]) -> None:
    write_text(run / SUMS_FILE, "".join(f"{value}  {name}\n" for name, value in sums.items()))
