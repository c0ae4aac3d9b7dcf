"""The studies that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.trust.vocabulary import CONFIGS

STUDIES = CONFIGS / "studies"


def shipped_studies() -> list[str]:
    """Their names.

    >>> "paper_2d" in shipped_studies()
    True
    """
    return sorted(file.stem for file in STUDIES.glob("*.yaml"))


def find_study(file: str | Path) -> Path:
    """A study file: the file itself, or a shipped study by its name (no suffix, no such file).

    Raises:
        RequestError: neither; the nearest name is given.
    """
    if Path(file).suffix or Path(file).is_file():
        return Path(file)
    if str(file) not in shipped_studies():
        raise RequestError(
            f"{file} is neither a file nor a study that comes with rarevox: {nearest(str(file), shipped_studies())}"
        )
    return STUDIES / f"{file}.yaml"
