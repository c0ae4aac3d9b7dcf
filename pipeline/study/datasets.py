"""Which prepared dataset a cell trains on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.study.plan import PlannedCell


def place_of(settings: Mapping[str, Any], root: str | Path) -> str:
    """The folder of a cell's dataset: the study's, or the one that the cell names, within the study's.

    >>> place_of({}, "/data"), place_of({"dataset": "rare"}, "/data"), place_of({"dataset": "/other"}, "/data")
    ('/data', '/data/rare', '/other')
    """
    return str(Path(root) / settings["dataset"]) if "dataset" in settings else str(root)


def load_all(cells: Iterable[PlannedCell], root: Path, structures: Iterable[str], *, test: bool) -> dict[str, Dataset]:
    """The datasets of all cells by their folders, each read once.

    Args:
        cells: of the study.
        root: the DATASET of the command.
        structures: that each must have.
        test: whether each must have held-out cases.

    Raises:
        RequestError: none there, without one of the structures (the nearest is named), or without held-out cases.
    """
    found: dict[str, Dataset] = {}
    for place in dict.fromkeys(place_of(cell.settings, root) for cell in cells):
        data = Dataset.load(place)
        for name in structures:
            if name not in data.scored:
                raise RequestError(f"{data.path} has no structure {name!r}: {nearest(name, data.scored)}")
        if test and not data.test:
            raise RequestError(
                f"{data.path} holds no case out, and the study scores held-out cases; prepare with --holdout, or write "
                "record: {test: false}"
            )
        found[place] = data
    return found


def fingerprint_of(found: Mapping[str, Dataset]) -> str:
    """The fingerprint of the datasets together; of one, its own."""
    own = [data.fingerprint for data in found.values()]
    return own[0] if len(own) == 1 else hashlib.sha256("\n".join(own).encode()).hexdigest()


def splits_of(found: Mapping[str, Dataset], root: str | Path) -> dict[str, str]:
    """How the cases of each dataset are dealt out, as an entry of a plan's ``files``: a digest of case and fold.

    The fingerprint knows the cases alone, and ``rarevox prepare --seed`` deals the same ones out anew. A dataset is
    called as it lies within ``root``, so that it is known again where all of it has moved.

    >>> splits_of({}, "/data")
    {}
    """
    said = {}
    for place, data in found.items():
        pairs = [[str(case["case"]), case.get("fold")] for case in (*data.training, *data.test)]
        within = Path(place).is_relative_to(root) and Path(place).relative_to(root)
        name = f"the split of {within if within and within.parts else 'the dataset' if within else place}"
        said[name] = hashlib.sha256(json.dumps(sorted(pairs, key=str)).encode()).hexdigest()
    return said
