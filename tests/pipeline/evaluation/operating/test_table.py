"""The table of curves: a row for each point, readable anywhere."""

from __future__ import annotations

import csv
from pathlib import Path

from rarevox.pipeline.evaluation.operating.table import CURVES_FILE, write_curves

CURVES = {
    "structures": {
        "lesion": {
            "threshold": 0.5,
            "confidence": 0.0,
            "voxels": {
                "threshold": [0.5],
                "recall": [0.25],
                "precision": [float("nan")],
                "true": [1],
                "predicted": [2],
            },
            "lesions": {
                "confidence": [0.0],
                "sensitivity": [0.75],
                "precision": [0.6],
                "false_per_scan": [2.0],
                "true": [3],
                "false": [2],
            },
        }
    }
}


def test_rows(tmp_path: Path) -> None:
    write_curves(tmp_path, CURVES)
    with (tmp_path / CURVES_FILE).open(newline="") as file:
        voxels, lesions = csv.DictReader(file)
    assert (voxels["curve"], voxels["threshold"], voxels["recall"], voxels["precision"]) == (
        "voxels",
        "0.5",
        "0.25",
        "",
    )
    assert (lesions["confidence"], lesions["recall"], lesions["false_per_scan"]) == ("0.0", "0.75", "2.0")
    assert lesions["predicted"] == "5"


def test_no_curves_leave_no_table(tmp_path: Path) -> None:
    write_curves(tmp_path, CURVES)
    write_curves(tmp_path, None)
    assert not (tmp_path / CURVES_FILE).exists()
