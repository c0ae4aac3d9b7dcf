"""Codes of structures that a run's metadata or a file states."""

from __future__ import annotations

from pathlib import Path

from rarevox.pipeline.bundle import METADATA
from rarevox.pipeline.dicom.codes import Coded, given_codes
from rarevox.pipeline.files import read_json
from rarevox.pipeline.plain_data import read_yaml

KEY = "structure_codes"
"""In a run's ``configs/metadata.json``, from the dataset's ``dataset.json``."""


def stated_codes(run: Path, file: str | Path | None = None) -> dict[str, Coded]:
    """The codes that a run states, those of a file (YAML or JSON) over them.

    Raises:
        RequestError: of another form; see :func:`rarevox.pipeline.dicom.codes.given_codes`.
    """
    path = run / METADATA
    content = read_json(path) if path.is_file() else {}
    stated = content.get(KEY, {}) if isinstance(content, dict) else {}
    found = given_codes(stated, f'"{KEY}" of {path}')
    return found if file is None else found | given_codes(read_yaml(file), str(file))
