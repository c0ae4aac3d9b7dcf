"""The report of a run's evaluation: the scores with the learning curves and the scans themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report import CaseImages, shown_cases, write_report
from pipeline.run_log import read_rows
from transforms.reader import ScanError, read_scan

CURVE_POINTS = 400


def write_run_report(
    folder: Path, result: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], run: Path, context: Mapping[str, Any]
) -> Path:
    """Write ``report.html`` into the evaluation folder.

    Args:
        folder: holds ``predictions/``.
        result: of :func:`pipeline.aggregate.aggregate`.
        cases: the evaluated section, with absolute file names.
        run: whose logs give the curves.
        context: name → text, shown in the report.
    """
    by_name = {str(case["case"]): case for case in cases}
    shown = [case_images(by_name[name], folder) for name in shown_cases(result) if name in by_name]
    title = f"{context['network']} on {context['dataset']}, section {context['section']}"
    return write_report(
        folder / "report.html",
        result,
        title=title,
        cases_images=[images for images in shown if images is not None],
        structures=result["conventions"].get("structure_values"),
        curves=curves(run),
        context=context,
    )


def case_images(case: Mapping[str, Any], folder: Path) -> CaseImages | None:
    """The first channel, the prediction and the reference of a case; None where not even the reference can be read."""
    try:
        reference = read_scan(case["label"], dtype=None)
    except ScanError:
        return None
    path = folder / "predictions" / f"{case['case']}_seg.nii.gz"
    prediction = read_scan(path, dtype=None).array[0] if path.is_file() else None
    try:
        image = case["image"]
        array = read_scan(image[0] if isinstance(image, list) else image).array[0]
    except ScanError:
        array = None
    if array is not None and array.shape != reference.shape:
        array = None
    labels = np.rint(reference.array[0]).astype(np.int32)
    return CaseImages(str(case["case"]), array, prediction, labels, reference.affine)


def curves(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The training losses, averaged into at most 400 points, and all validations of a run."""
    rows = [row for row in read_rows(run / "logs" / "train.jsonl") if row["loss"] is not None]
    parts = np.array_split(np.arange(len(rows)), min(len(rows), CURVE_POINTS)) if rows else []
    train = [
        {"iteration": rows[part[-1]]["iteration"], "loss": float(np.mean([rows[i]["loss"] for i in part]))}
        for part in parts
    ]
    return {"train": train, "validation": read_rows(run / "logs" / "validation.jsonl")}
