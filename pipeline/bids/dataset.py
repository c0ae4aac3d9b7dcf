"""The files of a BIDS derivative dataset that are about all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.files import write_json, write_text
from rarevox.pipeline.words import one_line

VERSION = "1.10.0"
"""Of BIDS."""
DESCRIPTION, TABLE, IGNORED, README = "dataset_description.json", "dseg.tsv", ".bidsignore", "README.md"
OWN_FILES = (DESCRIPTION, TABLE, IGNORED, README)
_IGNORED = (
    "/*.json",
    "!/dataset_description.json",
    "/journal",
    "*.csv",
    "*.html",
    "*.jpg",
    "*.dcm",
    "/*_entropy.nii.gz",
)
"""What rarevox writes besides, for which BIDS has no place."""


def write_dataset_files(folder: Path, labels: Mapping[str, int], version: str, sources: Mapping[str, str]) -> None:
    """Write ``dataset_description.json``, ``dseg.tsv``, ``.bidsignore`` and ``README.md``, where they differ.

    Several processes may do so at once: each file is whole, and they write the same.

    Args:
        folder: of the dataset.
        labels: name of each structure to its value.
        version: of rarevox.
        sources: names of the datasets that the scans are from, to their URLs.
    """
    content: dict[str, Any] = {
        "Name": "rarevox segmentations",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "rarevox", "Version": version, "Description": "rarevox predict --layout bids"}],
    }
    if sources:
        content["SourceDatasets"] = [{"URL": url} for url in sources.values()]
        content["DatasetLinks"] = dict(sources)
    rows = "".join(f"{value}\t{one_line(name)}\n" for name, value in labels.items())
    readme = (
        "# rarevox segmentations\n\nLabel maps (`_dseg`) on the grid of the image that each was made from, which its\n"
        "sidecar names; `dseg.tsv` says what the values mean. For research, not a medical device.\n"
    )
    _write(folder / DESCRIPTION, content)
    _write(folder / TABLE, f"index\tname\n{rows}")
    _write(folder / IGNORED, "\n".join(_IGNORED) + "\n")
    _write(folder / README, readme)


def _write(path: Path, content: Any) -> None:
    text = content if isinstance(content, str) else None
    try:
        there = path.read_text(encoding="utf-8")
        if there == text or (text is None and json.loads(there) == content):
            return
    except (OSError, ValueError):
        pass
    if text is None:
        write_json(path, content)
    else:
        write_text(path, text)


def sidecar(description: str, uri: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What stands beside a map: its source, which is its spatial reference too.

    >>> sidecar("Lesions", "bids:raw:sub-1/anat/sub-1_T1w.nii.gz")["SpatialReference"]
    'bids:raw:sub-1/anat/sub-1_T1w.nii.gz'
    """
    return {"Description": description, "Sources": [uri], "SpatialReference": uri, "Manual": False, **(more or {})}
