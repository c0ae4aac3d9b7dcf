"""The curves of the report: points in their place, the run's own point, and what has none left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import Detections
from rarevox.pipeline.evaluation.operating.froc import froc
from rarevox.pipeline.evaluation.operating.voxels import voxel_curve
from rarevox.pipeline.evaluation.report.curves_chart import curve_lines, operating_charts


def _curves(lesions: bool = True) -> dict[str, Any]:
    voxels = voxel_curve([0.25, 0.5], np.array([[5, 2, 0], [0, 1, 1]]))
    some = np.array([True, False])
    ones = np.ones(2, int)
    found = Detections(np.array([0.9, 0.6]), ones, ones, some, some | True, np.array([0.9, 0.0]))
    one = {"threshold": 0.5, "confidence": 0.0, "voxels": voxels}
    return {"structures": {"lesion": one | ({"lesions": froc([found], 0.0, MetricOptions())} if lesions else {})}}


def test_points_by_hand() -> None:
    voxels, lesions = operating_charts(_curves())
    # Recall 1 with precision 1/2, then recall 1/2 with precision 1; the run's own is the second.
    assert voxels["points"] == "1000.0,500.0 500.0,0.0"
    assert (voxels["dots"][0]["x"], voxels["dots"][0]["y"]) == (50.0, 0.0)
    # One false lesion a scan lies half-way between 1/8 and 8; without it the curve stands at its start.
    assert lesions["points"].split() == ["500.0,500.0", "500.0,500.0", "0.0,500.0"]
    assert lesions["x"]["ticks"][3] == {"text": "1", "at": 50.0}


def test_a_run_beyond_the_axis_is_told_with_its_figure() -> None:
    curves = _curves()
    lesions = curves["structures"]["lesion"]["lesions"]
    assert "beyond" not in operating_charts(curves)[1]["label"]
    lesions["false_per_scan"] = [21 * rate for rate in lesions["false_per_scan"]]
    assert operating_charts(curves)[1]["label"].endswith("; the run as it is set, at 21, lies beyond")


def test_where_hardly_any_lesion_is_false_a_sentence_stands_for_the_curve() -> None:
    curves = _curves()
    lesions = curves["structures"]["lesion"]["lesions"]
    lesions["false_per_scan"] = [0.0] * len(lesions["false_per_scan"])
    chart = operating_charts(curves)[1]
    assert "points" not in chart
    assert chart["note"].startswith("Lesions: 0.500 found, with 0 false ones a scan at the most")


def test_structures_without_lesions_have_one_chart() -> None:
    assert len(operating_charts(_curves(lesions=False))) == 1
    assert operating_charts(None) == []


def test_lines() -> None:
    # Recall steps of 1/2 at precision 1 and 1/2.
    assert curve_lines(_curves(lesions=False)) == ["average precision of lesion 0.750 (voxels)"]
    assert "FROC score 0.500 (lesions found where 0.125 to 8 false ones a scan are allowed" in curve_lines(_curves())[0]
