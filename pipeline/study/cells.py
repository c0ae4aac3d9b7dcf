"""The cells of a study: every combination of labels, what it sets, and what its folder is called."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.overlays import BUDGETS, laid_over
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.study_file import StudyFile

MOST_CELLS = 100_000
LONGEST_NAME = 120
"""Characters of a cell's name, which stands in names of files."""


def cells_of(study: StudyFile) -> tuple[PlannedCell, ...]:
    """All cells, the last axis the fastest.

    Raises:
        RequestError: too many, a ``by`` that does not fit, no budget or two, or two cells that are the same.
    """
    count = math.prod(map(len, study.axes.values()))
    if count > MOST_CELLS:
        raise RequestError(f"{study.name} has {count} cells; a study may have {MOST_CELLS}: split it")
    _check_by(study)
    found: list[PlannedCell] = []
    seen: dict[str, Mapping[str, str]] = {}
    names: set[str] = set()
    for chosen in itertools.product(*study.axes.values()):
        labels = dict(zip(study.axes, chosen, strict=True))
        settings = study.base
        for axis, label in labels.items():
            settings = laid_over(settings, study.axes[axis][label], labels, f"axis {axis} {label}")
        if "iterations" not in settings and "minutes" not in settings:
            raise RequestError(f"the cell {spoken(labels)} has no budget; give base: {{iterations: 1000}}")
        if settings.keys() >= BUDGETS:
            raise RequestError(
                f"the cell {spoken(labels)} has two budgets, {settings['iterations']} iterations and "
                f"{settings['minutes']:g} minutes; give one of them"
            )
        same = seen.setdefault(json.dumps(settings, sort_keys=True), labels)
        if same is not labels:
            raise RequestError(
                f"two cells are the same, {spoken(same)} and {spoken(labels)}: a label changes nothing, or a later "
                "axis sets what an earlier one had set"
            )
        name = name_of(labels.values())
        name = name if name not in names else f"{name[: LONGEST_NAME - 9]}-{_short_digest(labels)}"
        names.add(name)
        found.append(PlannedCell(name, labels, settings))
    return tuple(found)


def _check_by(study: StudyFile) -> None:
    """Labels in ``by`` that the other axis does not have would never be used: most likely they are misspelt."""
    for axis, labels in study.axes.items():
        for label, overlay in labels.items():
            for other, choices in overlay.get("by", {}).items():
                unknown = set(choices) - set(study.axes.get(other, choices))
                if unknown:
                    raise RequestError(
                        f"axis {axis} {label}: by {other} names {', '.join(sorted(unknown))}, and that axis has "
                        f"{', '.join(study.axes[other])}"
                    )


def spoken(labels: Mapping[str, str]) -> str:
    """Labels in words.

    >>> spoken({"network": "UNet", "lr": "1e-3"})
    'network UNet, lr 1e-3'
    """
    return ", ".join(f"{axis} {label}" for axis, label in labels.items())


def name_of(labels: Iterable[str]) -> str:
    """A file name from labels: their letters, digits and ``.+-``, joined by ``_``.

    >>> name_of(["UNet", "[16, 16, 1]", "1e-3", "../x", "-1"])
    'UNet_16-16-1_1e-3_x_-1'
    """
    parts = [re.sub(r"[^\w.+-]+", " ", label, flags=re.ASCII).strip(" ._").replace(" ", "-") or "x" for label in labels]
    name = "_".join(parts).lstrip("-.") or "x"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_short_digest(dict(enumerate(parts)))}"


def _short_digest(labels: Mapping[Any, str]) -> str:
    return hashlib.sha256(json.dumps(list(labels.items())).encode()).hexdigest()[:8]


def settings_texts(settings: Mapping[str, Any]) -> list[str]:
    """``KEY=VALUE`` texts as ``rarevox train --set`` takes them.

    >>> settings_texts({"optimizer#lr": 1e-05, "patch_size": [16, 16, 1], "loss": {"_target_": "a.B"}})
    ['optimizer#lr=1.0e-05', 'patch_size=[16, 16, 1]', 'loss={_target_: a.B}']
    """
    return [f"{key}={_flow(value)}" for key, value in settings.items()]


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n").removesuffix("\n...")


def command_of(cell: PlannedCell, dataset: str, threads: int) -> str:
    """The ``rarevox train`` that trains as the cell does, for the record.

    >>> command_of(PlannedCell("a", {}, {"network": "unet2d", "iterations": 5}), "DATA", 1)
    'OMP_NUM_THREADS=1 rarevox train DATA --output RUN --network unet2d --iterations 5'
    """
    import shlex

    found = ["rarevox", "train", dataset, "--output", "RUN"]
    for key in ("network", "loss", "fold", "iterations", "minutes"):
        if key in cell.settings:
            found += [f"--{key}", str(cell.settings[key])]
    for name in cell.settings.get("config", ()):
        found += ["--config", name]
    for text in settings_texts(cell.settings.get("settings", {})):
        found += ["--set", text]
    return f"OMP_NUM_THREADS={threads} " + shlex.join(found)
