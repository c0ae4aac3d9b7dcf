"""Curves of cases that were evaluated in parts, from what the parts left: the same as of all cases at once.

Voxels are counts by threshold, which add up. Lesions do not: their curve is of every peak, so that each evaluation
leaves the lesions of its cases in ``detections.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import Detections
from rarevox.pipeline.evaluation.operating.froc import froc
from rarevox.pipeline.evaluation.operating.voxels import counts_of, voxel_curve
from rarevox.pipeline.files import json_line, read_json, write_text

DETECTIONS_FILE = "detections.json"
Lesions = Mapping[str, Mapping[str, Detections]]
"""Structure → case → its lesions."""

_KINDS: dict[str, type] = {
    "peaks": float,
    "sizes": int,
    "overlaps": int,
    "true": bool,
    "counted": bool,
    "reference_peaks": float,
}


def write_detections(folder: Path, lesions: Lesions | None) -> None:
    """Write ``detections.json``, or remove an earlier one where no lesions were counted.

    ``structures`` has of each structure and case a list for every attribute of
    :class:`rarevox.pipeline.evaluation.operating.detection.Detections`.
    """
    if not lesions:
        (folder / DETECTIONS_FILE).unlink(missing_ok=True)
        return
    content = {
        name: {case: {key: getattr(found, key).tolist() for key in _KINDS} for case, found in cases.items()}
        for name, cases in lesions.items()
    }
    write_text(folder / DETECTIONS_FILE, json_line({"structures": content}) + "\n")


def read_detections(folder: Path) -> dict[str, dict[str, Detections]]:
    """What :func:`write_detections` wrote.

    Raises:
        RequestError: there is none, or it is of another form.
    """
    path = folder / DETECTIONS_FILE
    content = read_json(path)
    try:
        return {
            name: {case: _detections(lists) for case, lists in cases.items()}
            for name, cases in content["structures"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{path} is not what rarevox evaluate writes; evaluate again") from error


def _detections(lists: Mapping[str, Sequence[Any]]) -> Detections:
    columns: dict[str, np.ndarray] = {key: np.array(lists[key], kind) for key, kind in _KINDS.items()}
    lengths = {len(column) for key, column in columns.items() if key != "reference_peaks"}
    known = all(column.ndim == 1 and np.isfinite(column).all() for column in columns.values())
    if len(lengths) != 1 or not known:
        raise ValueError("lists of other lengths, or of no numbers")
    return Detections(**columns)


def curve_of(
    point: Mapping[str, float],
    voxels: Mapping[str, Any],
    lesions: Mapping[str, Detections] | None,
    options: MetricOptions,
    subjects: Mapping[str, str],
) -> dict[str, Any]:
    """The curves of one structure; the order of the cases does not matter.

    Args:
        point: ``threshold`` and ``confidence`` of the run.
        voxels: of :func:`rarevox.pipeline.evaluation.operating.voxels.voxel_curve`.
        lesions: of each case; None where they are not counted.
        options: the bootstrap.
        subjects: of cases that are not of their own.
    """
    found = {**point, "voxels": voxels}
    if lesions is not None:
        names = sorted(lesions)
        whose = [subjects.get(case) or case for case in names]
        found["lesions"] = froc([lesions[case] for case in names], point["confidence"], options, whose)
    return found


def add_curves(
    parts: Sequence[Mapping[str, Any]],
    lesions: Sequence[Lesions],
    options: MetricOptions,
    subjects: Mapping[str, str],
) -> dict[str, Any]:
    """The ``curves`` of all cases, from the ``curves`` of the parts that they were evaluated in.

    Args:
        parts: ``curves`` of each part's ``metrics.json``.
        lesions: of each part; empty where they are not counted.
        options: as the parts were evaluated with.
        subjects: of cases that are not of their own.

    Raises:
        ValueError: the parts are of other structures, operating points or conventions, or a case is in two of them.
    """
    first = parts[0]["structures"]
    structures = {}
    for part, found in zip(parts, lesions, strict=True):
        if any(len(cases) != part["n_cases"] for cases in found.values()):
            raise ValueError(f"a fold has curves of {part['n_cases']} cases and lesions of others; evaluate it again")
    for name in first:
        ones = [part["structures"].get(name) for part in parts]
        if any(set(part["structures"]) != set(first) for part in parts):
            raise ValueError("the folds have curves of different structures")
        point = {key: ones[0][key] for key in ("threshold", "confidence")}
        if any(one[key] != point[key] for one in ones for key in point):
            raise ValueError(f"the folds have different operating points of {name}")
        if any(one["voxels"]["threshold"] != ones[0]["voxels"]["threshold"] for one in ones):
            raise ValueError(f"the folds count {name} at different thresholds")
        counts = np.sum([counts_of(one["voxels"]) for one in ones], 0)
        voxels = voxel_curve(ones[0]["voxels"]["threshold"], counts)
        structures[name] = curve_of(point, voxels, _together(name, lesions), options, subjects)
    return {"n_cases": sum(part["n_cases"] for part in parts), "structures": structures}


def _together(name: str, lesions: Sequence[Lesions]) -> dict[str, Detections] | None:
    if not any(lesions):
        return None
    if any(name not in part for part in lesions):
        raise ValueError(f"lesions of {name} were not counted in every fold")
    together = {case: found for part in lesions for case, found in part[name].items()}
    if len(together) < sum(len(part[name]) for part in lesions):
        raise ValueError("a case is in two folds")
    return together
