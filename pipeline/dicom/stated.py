"""Codes of structures that a run's metadata or a file states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import METADATA
from rarevox.pipeline.dicom.codes import given_codes
from rarevox.pipeline.dicom.series import require_libraries
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.plain_data import read_yaml

KEY = "structure_codes"
"""In a run's ``configs/metadata.json``, from the dataset's ``dataset.json``."""


def require_codes(run: Path, kind: str | None, file: str | Path | None) -> dict[str, Any]:
    """The codes for a request of DICOM objects of a kind; none without such a request.

    Raises:
        RequestError: the extra ``dicom`` is not installed, codes of another form, or codes for nothing.
    """
    if kind is None:
        if file is not None:
            raise RequestError("--dicom-codes says how structures are called in DICOM objects; give --dicom too")
        return {}
    require_libraries("--dicom")
    return stated_codes(run, file)


def stated_codes(run: Path, file: str | Path | None = None) -> dict[str, Any]:
    """The codes that a run states, those of a file (YAML or JSON) over them, as plain values that were checked.

    Raises:
        RequestError: of another form; see :func:`rarevox.pipeline.dicom.codes.given_codes`.
    """
    path = run / METADATA
    content = read_json(path) if path.is_file() else {}
    stated = content.get(KEY, {}) if isinstance(content, dict) else {}
    given_codes(stated, f'"{KEY}" of {path}')
    more = {} if file is None else read_yaml(file)
    given_codes(more, str(file))
    return {**stated, **more}
