"""The curves of an evaluation as a table, a row for each point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.files import finite, write_text
from rarevox.pipeline.words import csv_text

CURVES_FILE = "curves.csv"
COLUMNS = (
    "structure",
    "curve",
    "threshold",
    "confidence",
    "recall",
    "precision",
    "false_per_scan",
    "true",
    "predicted",
)


def write_curves(folder: Path, curves: Mapping[str, Any] | None) -> None:
    """Write ``curves.csv``, or remove an earlier one where there are no curves.

    ``curve`` is ``voxels`` (a row for each threshold) or ``lesions`` (a row for each confidence, at the run's
    threshold; ``recall`` is the sensitivity of FROC). Figures that are not defined are empty.
    """
    if curves is None:
        (folder / CURVES_FILE).unlink(missing_ok=True)
        return
    write_text(folder / CURVES_FILE, csv_text(list(COLUMNS), finite(list(curve_rows(curves)))))


def curve_rows(curves: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of ``curves.csv``."""
    for name, one in curves["structures"].items():
        voxels = one["voxels"]
        for index, threshold in enumerate(voxels["threshold"]):
            row = {key: voxels[key][index] for key in ("recall", "precision", "true", "predicted")}
            yield {"structure": name, "curve": "voxels", "threshold": threshold, **row}
        lesions = one.get("lesions", {"confidence": []})
        for index, confidence in enumerate(lesions["confidence"]):
            row = {key: lesions[key][index] for key in ("precision", "false_per_scan", "true")}
            row |= {"recall": lesions["sensitivity"][index]}
            row |= {"predicted": lesions["true"][index] + lesions["false"][index]}
            yield {
                "structure": name,
                "curve": "lesions",
                "threshold": one["threshold"],
                "confidence": confidence,
                **row,
            }
