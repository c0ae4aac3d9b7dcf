"""Lesions counted in held-out cases."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.evaluation.metrics.lesions import lesion_scores
from rarevox.pipeline.study.plan import Plan, PlannedCell
from rarevox.pipeline.study.results.detection import detection, with_detection
from rarevox.pipeline.study.results.outcomes import Outcome, Results


@pytest.mark.parametrize("seed", range(3))
def test_it_counts_as_the_evaluation_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = (rng.random((2, 12, 13, 14)) > 0.93)[:2]
    found, theirs = detection(prediction, reference), lesion_scores(prediction, reference, (1.0, 1.0, 1.0))
    for name, value in found.items():
        assert value == pytest.approx(theirs[name], rel=4 * 2.0**-52)  # a quotient or four roundings


def test_nothing_predicted_and_nothing_there() -> None:
    nothing, something = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    missed = detection(nothing, something)
    assert (missed["lesion_recall"], missed["lesion_f1"]) == (0.0, 0.0)
    invented = detection(something, nothing)
    assert math.isnan(invented["lesion_recall"]) and invented["lesion_f1"] == 0.0
    assert all(math.isnan(value) for value in detection(nothing, nothing).values())


def test_rows_are_filled_from_label_maps_and_else_left_alone(tmp_path: Path, dataset_dir: Path) -> None:
    case = Dataset.load(dataset_dir).section("test")[0]
    reference = nib.load(case["label"])
    ball = (np.asarray(reference.dataobj) == 1).astype(np.uint8)
    folder = tmp_path / "cells" / "a" / "evaluation" / "test" / "predictions"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(ball, reference.affine), folder / f"{case['case']}_seg.nii.gz")
    rows = tuple({"case": name, "structure": "ball", "dice": 1.0} for name in (case["case"], "another"))
    own = ({"case": case["case"], "structure": "ball", "lesion_recall": 0.25},)
    outcomes = (Outcome("a", {}, state="done", test_cases=rows), Outcome("a", {}, state="done", test_cases=own))
    plan = Plan("p", "0", {"folder": str(dataset_dir)}, {}, (PlannedCell("a", {}, {}),))
    first, second = with_detection(tmp_path, plan, Results({}, outcomes)).outcomes
    assert first.test_cases[0]["lesion_recall"] == first.test_cases[0]["lesion_f1"] == 1.0
    assert first.test_cases[1] == rows[1]
    assert second.test_cases == own
