"""Lesions that the cells of a study find in held-out cases, counted from the label maps of their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.lesions import neighbourhood
from rarevox.pipeline.evaluation.report.planes import label_mask
from rarevox.pipeline.study.datasets import place_of
from rarevox.pipeline.study.plan import Plan
from rarevox.pipeline.study.results.outcomes import Outcome, Results
from rarevox.transforms.reader import ScanError, read_scan

SCORED = Path("evaluation") / "test"
"""In a cell's folder: what is left of the evaluation on held-out cases, with their label maps."""


def with_detection(study: Path, plan: Plan, results: Results) -> Results:
    """The results, with ``lesion_recall`` and ``lesion_f1`` in the rows of held-out cases that lack them.

    A row whose label map or reference cannot be read stays as it is.

    Args:
        study: its folder.
        plan: of the study.
        results: of the study.
    """
    settings = {cell.name: cell.settings for cell in plan.cells}

    @lru_cache(maxsize=16)
    def reference(place: str, case: str, structure: str) -> np.ndarray | None:
        return _reference(place, case, structure)

    @lru_cache(maxsize=16)
    def values(place: str, structure: str) -> Any:
        return Dataset.load(place).scored[structure]

    def detected(one: Outcome) -> Outcome:
        place = place_of(settings[one.cell], plan.dataset["folder"])
        folder = study / "cells" / one.cell / SCORED / "predictions"
        rows = tuple(_with_scores(row, folder, place, reference, values) for row in one.test_cases)
        return replace(one, test_cases=rows)

    return replace(results, outcomes=tuple(detected(one) if one.state == "done" else one for one in results.outcomes))


def _with_scores(
    row: Mapping[str, Any],
    folder: Path,
    place: str,
    reference: Callable[[str, str, str], np.ndarray | None],
    values: Callable[[str, str], Any],
) -> Mapping[str, Any]:
    if "lesion_recall" in row:
        return row
    case, structure = str(row["case"]), str(row["structure"])
    try:
        truth = reference(place, case, structure)
        labels = np.rint(read_scan(folder / f"{case}_seg.nii.gz", dtype=None).array[0])
        if truth is None or labels.shape != truth.shape:
            return row
        return {**row, **detection(label_mask(labels, values(place, structure)), truth)}
    except (RequestError, ScanError, KeyError):
        return row


def _reference(place: str, case: str, structure: str) -> np.ndarray | None:
    """Where a structure is in a held-out case, in voxels; None for a case that the dataset does not hold out."""
    data = Dataset.load(place)
    found = next((one for one in data.section("test") if one["case"] == case), None)
    if found is None:
        return None
    return label_mask(np.rint(read_scan(found["label"], dtype=None).array[0]), data.scored[structure])


def detection(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How many lesions are found, as ``rarevox evaluate`` counts them by default: one voxel in common is enough.

    Recall is the share of the reference's components that meet the prediction, precision that of the prediction's that
    meet the reference; F1 is their harmonic mean. Components are of 26 neighbours. NaN where there is nothing to count.

    Args:
        prediction: (X, Y, Z) mask.
        reference: (X, Y, Z) mask.

    >>> reference, prediction = np.zeros((2, 1, 1, 7), bool)
    >>> reference[0, 0, [0, 1, 4]], prediction[0, 0, [1, 6]] = True, True
    >>> detection(prediction, reference)
    {'lesion_recall': 0.5, 'lesion_precision': 0.5, 'lesion_f1': 0.5}
    """
    near = neighbourhood(26)
    lesions, count = ndimage.label(reference, near)
    predicted, others = ndimage.label(prediction, near)
    both = np.logical_and(reference, prediction)
    found, true = len(np.unique(lesions[both])), len(np.unique(predicted[both]))
    recall, precision = (n / of if of else float("nan") for n, of in ((found, count), (true, others)))
    total = count + others
    f1 = float("nan") if not total else 2 * recall * precision / (recall + precision) if found else 0.0
    return {"lesion_recall": recall, "lesion_precision": precision, "lesion_f1": f1}
