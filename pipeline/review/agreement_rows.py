"""The figures of one case: annotators and the model against one another and against consensus maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures, foreground, overlap_columns
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.review.annotators import CaseMaps, read_case
from rarevox.pipeline.review.consensus import consensus

MODEL, CONSENSUS = "model", "consensus"
RELATIONS = {
    "pair": "two annotators",
    "consensus": "an annotator against the consensus of the others",
    "model_pair": "the model against an annotator",
    "model_consensus": "the model against the consensus of all annotators",
    "model_without": "the model against the consensus without one annotator (second)",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class CaseAgreement:
    """What one case gives.

    Attributes:
        case: its name.
        rows: those of :func:`rarevox.pipeline.evaluation.metrics.rows.case_rows`, with ``relation`` (see
            ``RELATIONS``), ``first`` (the prediction) and ``second`` (the reference).
        performance: ``{"case", "value", "annotator", "sensitivity", "specificity"}`` by STAPLE of all annotators.
        missing: annotator → why there is no map.
        model_reason: why there is no map of the model.
        annotators: how many maps there were.
    """

    case: str
    rows: list[Row]
    performance: list[Row]
    missing: dict[str, str]
    model_reason: str
    annotators: int


def agree_case(
    item: tuple[str, Mapping[str, Path], Path | None],
    *,
    annotators: Sequence[str],
    structures: Structures,
    options: MetricOptions,
    with_model: bool,
    known: set[int] | None,
    resample: bool,
    consensus_folder: Path | None,
    doubled: Mapping[str, Mapping[str, str]] | None = None,
) -> CaseAgreement:
    """Read one case, compare everyone with everyone, and write the consensus where there is a folder for it.

    A case with fewer than two usable maps has no rows.
    """
    case, files, model = item
    how: dict[str, Any] = {"with_model": with_model, "known": known, "resample": resample}
    maps = read_case(case, files, annotators, model, **how, doubled=(doubled or {}).get(case))
    if len(maps.maps) < 2:
        return CaseAgreement(case, [], [], maps.missing, maps.model_reason, len(maps.maps))
    values = sorted({value for group in foreground(structures, options).values() for value in group} - {0})
    arrays = {name: labels.array for name, labels in maps.maps.items()}
    whole, found = consensus(list(arrays.values()), values)
    if consensus_folder is not None and maps.grid is not None:
        try:
            _write(consensus_folder / f"{case}.nii.gz", whole, maps.grid)
        except OSError as error:  # the name too long, the disk full: the figures stand all the same
            maps.missing[CONSENSUS] = f"the consensus map was not written: {error.strerror or error}"
    performance = [
        {"case": case, "value": value, "annotator": name, "sensitivity": p, "specificity": q}
        for value, one in found.items()
        for name, p, q in zip(arrays, one.sensitivity, one.specificity, strict=True)
    ]
    rows = _Rows(maps, structures, options)
    for first, second in combinations(arrays, 2):
        rows.add("pair", first, second, arrays[first], arrays[second])
    for name, array in arrays.items():
        others, _ = consensus([other for key, other in arrays.items() if key != name], values)
        rows.add("consensus", name, CONSENSUS, array, others)
        if with_model:
            rows.add_model("model_without", name, others)
            rows.add_model("model_pair", name, array)
    if with_model:
        rows.add_model("model_consensus", CONSENSUS, whole)
    return CaseAgreement(case, rows.rows, performance, maps.missing, maps.model_reason, len(arrays))


class _Rows:
    """The rows of one case as they come."""

    def __init__(self, maps: CaseMaps, structures: Structures, options: MetricOptions) -> None:
        self.maps, self.structures, self.options = maps, structures, options
        self.spacing = next(iter(maps.maps.values())).spacing_mm
        self.rows: list[Row] = []

    def add(self, relation: str, first: str, second: str, one: np.ndarray, other: np.ndarray) -> None:
        options = replace(self.options, empty="one")
        rows = case_rows(self.maps.case, one, other, self.spacing, self.structures, options=options)
        self._keep(relation, first, second, rows)

    def add_model(self, relation: str, second: str, other: np.ndarray) -> None:
        """The model against a map; without a usable map of it, a failure."""
        if self.maps.model is not None:
            self.add(relation, MODEL, second, self.maps.model.array, other)
            return
        rows = failed_rows(
            self.maps.case,
            self.structures,
            self.maps.model_reason,
            reference=other,
            spacing_mm=self.spacing,
            options=self.options,
        )
        self._keep(relation, MODEL, second, rows)

    def _keep(self, relation: str, first: str, second: str, rows: Sequence[Row]) -> None:
        for row in rows:
            if self.options.empty == "nan" and row["status"] == "empty_both":
                row |= dict.fromkeys(overlap_columns(self.options), math.nan)
            self.rows.append({"relation": relation, "first": first, "second": second, **row})


def _write(path: Path, labels: np.ndarray, like: Path) -> None:
    from rarevox.pipeline.data.volumes import write_labels
    from rarevox.transforms.reader import read_grid

    write_labels(path, labels, read_grid(like))
