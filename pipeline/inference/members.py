"""The runs of an ensemble in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json

ENSEMBLE_FILE = "ensemble.json"
"""In a folder whose runs are to be taken together: ``{"members": [RUN, …]}``, relative to it."""


def with_members(runs: Sequence[str | Path]) -> list[str | Path]:
    """The runs, a folder that holds an ensemble (``ensemble.json``, of ``rarevox crossval``) replaced by its members.

    Raises:
        RequestError: the file does not name runs within its folder.
    """
    found: list[str | Path] = []
    for run in runs:
        file = Path(run) / ENSEMBLE_FILE
        if not file.is_file():
            found.append(run)
            continue
        content = read_json(file)
        members = content.get("members") if isinstance(content, dict) else None
        if not members or not isinstance(members, list) or not all(map(_is_within, members)):
            raise RequestError(f"{file}: members is {members!r}; expected runs in that folder, such as cells/fold_0")
        found += [Path(run) / member for member in members]
    return found


def _is_within(member: object) -> bool:
    return isinstance(member, str) and not Path(member).is_absolute() and ".." not in Path(member).parts
