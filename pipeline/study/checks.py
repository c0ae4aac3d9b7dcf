"""What cannot work in a study is said before any of its cells runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import derive
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.cells import settings_texts, spoken
from rarevox.pipeline.study.datasets import place_of
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.study_file import StudyFile
from rarevox.pipeline.training.configured import checked
from rarevox.pipeline.training.failures import one_sentence
from rarevox.pipeline.trust.gate import require_ours

SHAPING = ("network_def", "geometry", "patch_size", "loss_margin", "slice_axis", "spacing", "batch_size", "in_channels")
"""Settings on which shapes, memory and time depend."""
OWN_SETTINGS = {"batch_record#keep": True, "validation_cases": 0, "log#tensorboard": False, "cache": "disk"}
"""What a cell sets unless it says otherwise: it costs its steps, and its volumes are shared by all cells."""


def tell_single_values(study: StudyFile) -> None:
    """Say of which axes nothing depends."""
    for axis, labels in study.axes.items():
        if len(labels) == 1:
            console.say("[yellow]axis {}[/yellow] has one value, {}: nothing is compared along it", axis, *labels)


def composed_cell(cell: PlannedCell, data: Dataset, *, device: str) -> dict[str, Any]:
    """The configuration of a cell, checked; no volume is read.

    Raises:
        RequestError: as :func:`rarevox.pipeline.training.configured.checked`, the cell named.
    """
    budget = {key: cell.settings[key] for key in ("iterations", "minutes", "fold") if key in cell.settings}
    budget |= {"minutes": None} if "minutes" not in budget else {}
    try:
        with one_sentence("composing the configuration"):
            _, config = checked(
                data,
                cell.settings.get("network"),
                cell.settings.get("loss"),
                cell.settings.get("config", ()),
                settings_texts(OWN_SETTINGS | cell.settings.get("settings", {})),
                budget | {"device#name": device},
            )
    except RequestError as error:
        raise RequestError(f"the cell {spoken(cell.labels)}: {error}") from error
    return config


def check_cells(
    cells: Iterable[PlannedCell], root: Path, datasets: Mapping[str, Dataset], *, device: str, trust: bool
) -> dict[str, tuple[PlannedCell, dict[str, Any]]]:
    """Compose and check what differs between the cells, each difference once.

    Every combination of network, patch and dataset is checked, and every combination of loss, configurations and other
    settings, numbers in those counting as alike: of ten thousand cells some dozens. Cells of one such combination that
    differ in a number may yet fail by it, which then is the reason in their row.

    Returns:
        For each combination that shapes and times depend on, one of its cells with its configuration.

    Raises:
        RequestError: the first that cannot work; among the words are the nearest that can.
    """
    shapes: dict[str, tuple[PlannedCell, dict[str, Any]]] = {}
    seen: set[str] = set()
    for cell in cells:
        shape, other = shape_of(cell), _other_of(cell)
        if shape in shapes and other in seen:
            continue
        config = composed_cell(cell, datasets[place_of(cell.settings, root)], device=device)
        if not (config["batch_record"] or {"keep": False}).get("keep", True):
            raise RequestError(
                f"the cell {spoken(cell.labels)}: batch_record#keep is false, and its row is made of that"
            )
        if other not in seen and not trust:
            _require_plain_words(cell, config)
        seen.add(other)
        shapes.setdefault(shape, (cell, config))
    return shapes


def _require_plain_words(cell: PlannedCell, config: dict[str, Any]) -> None:
    """What evaluation and resuming would refuse is refused before the training."""
    for stage in ("evaluate", "train"):
        own = config if stage == "train" else derive(stage, config)
        try:
            require_ours(own, f"the cell {spoken(cell.labels)}")
        except RequestError as error:
            raise RequestError(f"{error} (rarevox study … --trust)") from error


def shape_of(cell: PlannedCell) -> str:
    """What shapes and times depend on, as a text."""
    settings = {k: v for k, v in cell.settings.get("settings", {}).items() if k.partition("#")[0] in SHAPING}
    named = {key: cell.settings.get(key) for key in ("network", "config", "dataset", "fold")}
    return json.dumps([named, settings], sort_keys=True)


def _other_of(cell: PlannedCell) -> str:
    """What else can be wrong, as a text; numbers read alike."""
    own = {k: v for k, v in cell.settings.get("settings", {}).items() if k.partition("#")[0] not in SHAPING}
    kinds = {key: type(value).__name__ if type(value) in (int, float) else value for key, value in own.items()}
    return json.dumps([{key: cell.settings.get(key) for key in ("loss", "config")}, kinds], sort_keys=True)
