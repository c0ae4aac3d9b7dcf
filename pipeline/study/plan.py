"""The plan of a study: its cells with all that they set, fixed when the study begins; ``plan.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json, write_json

PLAN_FILE, VERSION = "plan.json", 1


@dataclass(frozen=True)
class PlannedCell:
    """One training of a study.

    Attributes:
        name: of its folder in ``cells/``.
        labels: axis to label.
        settings: what is laid over the templates: ``network``, ``loss``, ``config``, ``settings``, ``dataset``,
            ``iterations``, ``minutes``, ``fold``.
    """

    name: str
    labels: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """A study as it was planned.

    Attributes:
        name: of the study.
        study: SHA-256 of the study file.
        dataset: ``folder`` and ``fingerprint``.
        axes: the labels of each axis, in the order of the file.
        cells: in the order of the axes, the last axis the fastest.
        base: what all cells have in common.
        last: iterations over which the Dice of training batches is summarised.
        iterations: of a cell, unless the cell says otherwise.
        threads: of a cell, so that the result does not depend on how many cells run at once.
        device: on which a cell trains: auto, cpu, cuda or cuda:i.
        test: whether cells are evaluated on the held-out cases.
        structures: whose Dice count; none are all.
        layout: hints for the report, as the study file gives them.
        files: users' configuration files that cells take, to the SHA-256 of what they say, and how each dataset was
            split; studies of earlier versions have none.
    """

    name: str
    study: str
    dataset: Mapping[str, str]
    axes: Mapping[str, Sequence[str]]
    cells: tuple[PlannedCell, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    last: int = 200
    iterations: int | None = None
    threads: int = 1
    device: str = "auto"
    test: bool = True
    structures: tuple[str, ...] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` gives the plan back."""
        content = {key: value for key, value in vars(self).items() if key != "cells"}
        cells = [{"cell": one.name, "labels": one.labels, "settings": one.settings} for one in self.cells]
        return {"version": VERSION, **content, "cells": cells}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """The plan that :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, AttributeError: it is not of that form.
        """
        cells = tuple(PlannedCell(str(c["cell"]), dict(c["labels"]), dict(c["settings"])) for c in content["cells"])
        rest = {key: value for key, value in content.items() if key not in ("version", "cells")}
        return cls(**rest | {"structures": tuple(content.get("structures") or ())}, cells=cells)


def read_plan(study: str | Path) -> Plan:
    """The plan of a study.

    Args:
        study: the folder of the study.

    Raises:
        RequestError: no study, or not a plan of this version.
    """
    file = Path(study) / PLAN_FILE
    if not file.is_file():
        raise RequestError(f"{study} is not a study (no {PLAN_FILE}); give the --output of `rarevox study`")
    content = read_json(file)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise RequestError(f"{file} is of version {version!r}; expected {VERSION}: plan the study anew")
    try:
        return Plan.from_json(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{file} is no plan of a study ({error}); plan the study anew") from error


def write_plan(study: Path, plan: Plan) -> None:
    """Write ``plan.json``, whole."""
    write_json(study / PLAN_FILE, plan.to_json())
