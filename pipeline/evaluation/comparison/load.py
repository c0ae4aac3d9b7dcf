"""Evaluation folders read back and paired by case and structure, or refused where a comparison would not be honest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.evaluation.metrics.lesions import SIZES
from rarevox.pipeline.evaluation.metrics.panoptic import COLUMNS, QUALITY
from rarevox.pipeline.files import read_json

SAME_VOLUME = 1e-3
"""References of one case and structure may differ by this share in volume, the rounding of files, and no more."""
_NO_FIGURE = ("case", "structure", "status", "reason", "subject")
_SURFACE = {"surface": "surfaces", "distance_penalty_mm": "distances of empty masks"}
_LESIONS = {"connectivity": "lesions", "lesion_dilation": "lesions", "lesion_min_ml": "lesions"}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation folder as read.

    Attributes:
        name: what it is called in the comparison.
        folder: where ``metrics.json`` lies.
        structures: in the order of the file.
        figures: (case, structure) → the metric; NaN where it is not defined.
        references_ml: (case, structure) → volume of the reference; NaN where it is not known.
        conventions: those of the file.
        subjects: of each case.
    """

    name: str
    folder: Path
    structures: tuple[str, ...]
    figures: Mapping[tuple[str, str], float]
    references_ml: Mapping[tuple[str, str], float]
    conventions: Mapping[str, Any]
    subjects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Paired:
    """The cases that all evaluations have.

    Attributes:
        names: of the evaluations.
        cases: sorted.
        structures: in the order of the first evaluation.
        values: (evaluations, cases, structures); NaN for all evaluations where any has no figure.
        left_out: ``{"case", "missing_from"}`` for each case that some evaluation lacks.
        undefined: ``{"case", "structure", "undefined_in"}`` where the figure of some evaluation is not defined.
        mean_over: the structures that the mean over structures is over; None is all of them.
        subjects: of each case; None: each is of its own.
    """

    names: tuple[str, ...]
    cases: tuple[str, ...]
    structures: tuple[str, ...]
    values: np.ndarray
    left_out: tuple[dict[str, Any], ...]
    undefined: tuple[dict[str, Any], ...]
    mean_over: tuple[str, ...] | None = None
    subjects: tuple[str, ...] | None = None


def load(folders: Sequence[str | Path], metric: str = "dice", names: Sequence[str] = ()) -> list[Evaluation]:
    """Read the evaluations.

    Args:
        folders: at least two, each with the ``metrics.json`` of ``rarevox evaluate`` or ``rarevox score``.
        metric: a column of ``cases.csv``.
        names: one for each folder; without any, the folders' own.

    Raises:
        RequestError: fewer than two folders or one twice, a folder without results, a metric that is not in them, names
            that do not fit.
    """
    places = [Path(folder) for folder in folders]
    if len(places) < 2:
        raise RequestError("a comparison needs two evaluation folders or more, each with a metrics.json")
    if len({place.resolve() for place in places}) < len(places):
        raise RequestError("a folder is given twice; give each evaluation once")
    if names and len(names) != len(places):
        raise RequestError(f"{len(names)} names for {len(places)} folders; give --name once for each, in their order")
    if len(set(names)) < len(names):
        raise RequestError(f"--name {', '.join(names)}: every evaluation needs a name of its own")
    return [_read(place, name, metric) for place, name in zip(places, names or short_names(places), strict=True)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """The part of each path that tells it from the others.

    >>> short_names([Path("runs/a/evaluation/test"), Path("runs/b/evaluation/test")])
    ['a', 'b']
    >>> short_names([Path("a/test"), Path("a/validation"), Path("b/test")])
    ['a/test', 'a/validation', 'b/test']
    """
    parts = [folder.resolve().parts for folder in folders]
    while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    return [str(folder) for folder in folders]


def pair(evaluations: Sequence[Evaluation], metric: str = "dice") -> Paired:
    """Bring evaluations together by case and structure.

    Raises:
        RequestError: other structures, conventions that change this metric, other references, or no case in common.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        _same_conventions(first, other, metric)
        _same_references(first, other)
    sets = [{case for case, _ in evaluation.figures} for evaluation in evaluations]
    cases = sorted(set.intersection(*sets))
    names = tuple(evaluation.name for evaluation in evaluations)
    if not cases:
        raise RequestError(
            f"{' and '.join(names)} have no case in common (for example {_example(sets[0])} against "
            f"{_example(sets[1])}); compare evaluations of the same cases"
        )
    keys = [(case, structure) for case in cases for structure in first.structures]
    table = [[evaluation.figures.get(key, math.nan) for key in keys] for evaluation in evaluations]
    values = np.array(table, float).reshape(len(evaluations), len(cases), len(first.structures))
    left_out = [
        {"case": case, "missing_from": [name for name, found in zip(names, sets, strict=True) if case not in found]}
        for case in sorted(set.union(*sets) - set(cases))
    ]
    known = np.isfinite(values)
    undefined = [
        {
            "case": cases[c],
            "structure": first.structures[s],
            "undefined_in": [name for name, finite in zip(names, known[:, c, s], strict=True) if not finite],
        }
        for c, s in np.argwhere(~known.all(axis=0))
    ]
    values[:, ~known.all(axis=0)] = np.nan
    over = tuple(first.conventions["mean_over"])
    known_subjects = {case: subject for one in evaluations for case, subject in one.subjects.items()}
    whose = tuple(known_subjects.get(case, case) for case in cases)
    return Paired(names, tuple(cases), first.structures, values, tuple(left_out), tuple(undefined), over, whose)


def _read(place: Path, name: str, metric: str) -> Evaluation:
    folder = place.parent if place.name == "metrics.json" else place
    if not (folder / "metrics.json").is_file():
        raise RequestError(
            f"{folder} has no metrics.json; give the folder that `rarevox evaluate` (RUN/evaluation/SECTION) or "
            "`rarevox score --output` wrote"
        )
    content = read_json(folder / "metrics.json")
    try:
        rows, conventions = content["cases"], content["conventions"]
        keys = [(str(row["case"]), str(row["structure"])) for row in rows]
        structures, over = _names(content["structures"]), _names(conventions["mean_over"])
        if not set(over) <= set(structures):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{folder / 'metrics.json'} is no result of rarevox ({_missing(error)}); evaluate or score anew"
        ) from error
    columns = {column for row in rows for column in row if column not in _NO_FIGURE}
    if metric not in columns:
        raise RequestError(f"{name} has no column {metric!r} in its cases: {nearest(metric, columns)}")
    figures, volumes = (
        {key: _number(row.get(column)) for key, row in zip(keys, rows, strict=True)}
        for column in (metric, "reference_ml")
    )
    subjects = {str(row["case"]): str(row["subject"]) for row in rows if row.get("subject")}
    return Evaluation(name, folder, structures, figures, volumes, conventions, subjects)


def _names(content: object) -> tuple[str, ...]:
    if not isinstance(content, (dict, list)) or not all(isinstance(name, str) for name in content):
        raise TypeError
    return tuple(content)


def _missing(error: BaseException) -> str:
    """What a missing part is called."""
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else "not a mapping of results"


def _same_conventions(first: Evaluation, other: Evaluation, metric: str) -> None:
    """Structures, and the conventions that decide this metric, must be the same."""
    if set(first.structures) != set(other.structures):
        raise RequestError(
            f"{first.name} has the structures {', '.join(first.structures)} and {other.name} has "
            f"{', '.join(other.structures)}; evaluate both with the same structures and names"
        )
    deciding = {"empty": "empty masks", "ignored_value": "voxels that nobody annotated"}
    if metric.endswith("_mm") or metric.startswith("surface_dice"):
        deciding |= _SURFACE
    if metric.startswith("lesion"):
        deciding |= _LESIONS | {"surface": "surfaces", "lesion_penalty_mm": "missed lesions"}
    if metric in (*COLUMNS, QUALITY):
        deciding |= {"connectivity": "components", "panoptic_iou": "pairs of components"}
    if metric.endswith(SIZES):
        deciding["lesion_sizes_ml"] = "small and large lesions"
    for key, what in deciding.items():
        mine, theirs = (evaluation.conventions.get(key) for evaluation in (first, other))
        if mine != theirs:
            raise RequestError(
                f"{first.name} and {other.name} treat {what} differently ({key}: {mine} against {theirs}), so their "
                f"{metric} cannot be compared; evaluate both by one convention"
            )


def _same_references(first: Evaluation, other: Evaluation) -> None:
    """A case whose reference has another volume was not scored against the same reference."""
    for key, mine in first.references_ml.items():
        theirs = other.references_ml.get(key, math.nan)
        if abs(mine - theirs) > SAME_VOLUME * max(mine, theirs):
            raise RequestError(
                f"the reference of case {key[0]!r}, {key[1]}, has {mine:.4g} ml in {first.name} and {theirs:.4g} ml in "
                f"{other.name}; compare evaluations against the same references"
            )


def _example(cases: set[str]) -> str:
    return min(cases, default="no case")


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
