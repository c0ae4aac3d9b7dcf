"""Who annotated which case: folders of label maps, matched by name, and the maps of one case on one grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rarevox.pipeline.data.formats import is_volume
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.comparison.load import short_names
from rarevox.pipeline.evaluation.label_maps import LabelMap, on_grid, read_label_map
from rarevox.pipeline.evaluation.score_pairs import MATCHING, by_case, is_agreement, label_maps, passed_over
from rarevox.transforms.reader import ScanError, same_affine


@dataclass(frozen=True)
class CaseMaps:
    """The label maps of one case.

    Attributes:
        case: its name.
        maps: annotator → map, all on one grid.
        model: the model's map on the same grid, or None.
        grid: the file whose grid it is.
        missing: annotator → why there is no map.
        model_reason: why there is no map of the model; empty if there is one or no model.
    """

    case: str
    maps: dict[str, LabelMap]
    model: LabelMap | None
    grid: Path | None
    missing: dict[str, str] = field(default_factory=dict)
    model_reason: str = ""


@dataclass(frozen=True)
class Found:
    """What annotators' folders hold.

    Attributes:
        cases: case → annotator → file, sorted.
        doubled: case → annotator → which of their files claim to be it.
        left: what else lies there and cannot be used, a sentence each.
    """

    cases: dict[str, dict[str, Path]]
    doubled: dict[str, dict[str, str]]
    left: tuple[str, ...]


def find_annotators(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Annotator → folder: two folders or more, or one that holds a folder for each annotator.

    Raises:
        RequestError: a folder that does not exist or is given twice, or fewer than two annotators.
    """
    places = [Path(folder) for folder in folders]
    for place in places:
        if not place.is_dir():
            raise RequestError(f"{place} is not a folder; give a folder of label maps for each annotator")
    if len({place.resolve() for place in places}) < len(places):
        raise RequestError("a folder is given twice; give each annotator once")
    if len(places) == 1:
        inner = (folder for folder in sorted(places[0].iterdir()) if not folder.name.startswith("."))
        places = [folder for folder in inner if folder.is_dir() and holds_maps(folder)]
    if len(places) < 2:
        raise RequestError(
            f"{Path(folders[0])} has the label maps of one annotator at most; give a folder for each of two annotators "
            "or more, or one folder that holds theirs"
        )
    return dict(zip(short_names(places), places, strict=True))


def find_cases(annotators: Mapping[str, Path]) -> Found:
    """The cases in annotators' folders and the folders in them, by the rule of
    :data:`rarevox.pipeline.evaluation.score_pairs.MATCHING`.

    Raises:
        RequestError: a folder without label maps, or no case that two annotators have.
    """
    found: dict[str, dict[str, Path]] = {}
    doubled: dict[str, dict[str, str]] = {}
    for name, folder in annotators.items():
        cases, several = by_case(label_maps(folder, deep=True), folder)
        for case, path in cases.items():
            found.setdefault(case, {})[name] = path
        for case, reason in several.items():
            found.setdefault(case, {})
            doubled.setdefault(case, {})[name] = reason
    if max(map(len, found.values())) < 2:
        examples = {name: next((case for case, files in found.items() if name in files), "") for name in annotators}
        listed = ", ".join(f"{case} of {name}" for name, case in list(examples.items())[:3])
        raise RequestError(
            f"no two annotators have a case in common (for example {listed}); names are matched {MATCHING}"
        )
    left = tuple(sentence for folder in annotators.values() for sentence in passed_over(folder))
    return Found(dict(sorted(found.items())), doubled, left)


def read_case(
    case: str,
    files: Mapping[str, Path],
    annotators: Sequence[str],
    model: Path | None = None,
    *,
    with_model: bool = False,
    known: set[int] | None = None,
    resample: bool = False,
    doubled: Mapping[str, str] | None = None,
) -> CaseMaps:
    """Read the maps of one case; what cannot be used is left out, with the reason, never an exception.

    The grid is the one that most annotators use, of equally many that of the first. Maps on another one are brought
    onto it with ``resample`` and left out without.

    Args:
        case: its name.
        files: annotator → file.
        annotators: all annotators, in order.
        model: the model's map.
        with_model: whether a model is compared, so that a missing map of it is a failure.
        known: label values that maps may hold; None takes any.
        resample: bring maps onto the grid by nearest neighbour.
        doubled: annotator → which files claim to be the case's map.
    """
    why = doubled or {}
    maps, missing = {}, {name: why.get(name, "there is no map of it") for name in annotators if name not in files}
    for name in annotators:
        try:
            if name in files:
                maps[name] = read_label_map(files[name], known)
        except ScanError as error:
            missing[name] = str(error)
    if not maps:
        return CaseMaps(case, {}, None, None, missing)
    chosen = max(maps, key=lambda name: sum(_same_grid(maps[name], other) for other in maps.values()))
    fitting = {}
    for name, labels in maps.items():
        try:
            fitting[name] = _onto(labels, maps[chosen], resample)
        except ScanError as error:
            missing[name] = str(error).replace("prediction and reference are", f"{name} and {chosen} are")
    predicted, reason = None, ""
    try:
        if with_model and model is None:
            raise ScanError("there is no prediction for it")
        if model is not None:
            predicted = _onto(read_label_map(model, known), maps[chosen], resample)
    except ScanError as error:
        reason = str(error).replace("prediction and reference are", f"the model and {chosen} are")
    ordered = {name: fitting[name] for name in annotators if name in fitting}
    return CaseMaps(case, ordered, predicted, files[chosen], missing, reason)


def holds_maps(folder: Path) -> bool:
    """Whether label maps lie in a folder or below it, other than the consensus of an earlier agreement."""
    if is_agreement(folder):
        return False
    return any(is_volume(Path(name)) for _, folders, names in os.walk(folder) for name in (*names, *folders))


def _same_grid(first: LabelMap, second: LabelMap) -> bool:
    return first.array.shape == second.array.shape and same_affine(first.affine, second.affine)


def _onto(labels: LabelMap, grid: LabelMap, resample: bool) -> LabelMap:
    return LabelMap(on_grid(labels, grid, resample), grid.affine, grid.spacing_mm)
