"""The report of a run's evaluation: the scores with the learning curves and the scans themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.report.page import CaseImages, shown_cases, write_report
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.transforms.reader import ScanError, read_scan

CURVE_POINTS = 400


def write_run_report(
    folder: Path, result: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], run: Path, context: Mapping[str, Any]
) -> Path:
    """Write ``report.html`` into the evaluation folder.

    Args:
        folder: holds ``predictions/``.
        result: of :func:`rarevox.pipeline.evaluation.metrics.aggregate.aggregate`.
        cases: the evaluated section, with absolute file names.
        run: whose logs give the curves.
        context: name → text, shown in the report.
    """
    by_name = {str(case["case"]): case for case in cases}
    ignored = result["conventions"].get("ignored_value")
    shown = (case_images(by_name[name], folder, ignored) for name in shown_cases(result) if name in by_name)
    title = f"{context['network']} on {context['dataset']}, section {context['section']}"
    return write_report(
        folder / "report.html",
        result,
        title=title,
        cases_images=(images for images in shown if images is not None),
        structures=result["conventions"].get("structure_values"),
        curves=curves(run),
        context=context,
    )


def case_images(case: Mapping[str, Any], folder: Path, ignored: int | None = None) -> CaseImages | None:
    """The channel that shows most, the prediction and the reference of a case; None without a readable reference.

    What nobody annotated, the label ``ignored``, is shown as background of the reference.
    """
    try:
        reference = read_scan(case["label"], dtype=None)
    except ScanError:
        return None
    path = folder / "predictions" / f"{case['case']}_seg.nii.gz"
    prediction = read_scan(path, dtype=None).array[0] if path.is_file() else None
    try:
        channels = read_scan(case["image"]).array
    except ScanError:
        channels = None
    labels = np.rint(reference.array[0]).astype(np.int32)
    if ignored is not None:
        labels[labels == ignored] = 0
    fits = channels is not None and channels.shape[1:] == labels.shape
    array = channels[telling_channel(channels, labels)] if channels is not None and fits else None
    return CaseImages(str(case["case"]), array, prediction, labels, reference.affine)


def telling_channel(channels: np.ndarray, labels: np.ndarray) -> int:
    """The channel in which the rarest structure stands out most from the voxels around it; 0 without any structure.

    Standing out is |mean inside − mean of the shell of 3 voxels around| ÷ standard deviation in that shell.

    Args:
        channels: (C, X, Y, Z) intensities.
        labels: (X, Y, Z), 0 is background.

    >>> labels = np.zeros((9, 9, 9), int); labels[4, 4, 4] = 1
    >>> noise = np.random.default_rng(0).normal(size=(9, 9, 9))
    >>> telling_channel(np.stack([noise, noise + 9 * labels]), labels)
    1
    """
    from scipy.ndimage import binary_dilation

    values, counts = np.unique(labels[labels != 0], return_counts=True)
    if len(channels) == 1 or not len(values):
        return 0
    inside = labels == values[np.argmin(counts)]
    shell = binary_dilation(inside, iterations=3) & (labels == 0)
    if not shell.any():
        return 0
    contrast = [abs(c[inside].mean() - c[shell].mean()) / (c[shell].std() + 1e-12) for c in channels]
    return int(np.nanargmax(contrast)) if np.isfinite(contrast).any() else 0


def curves(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The training losses, averaged into at most 400 points, and all validations of a run."""
    rows = [row for row in read_rows(run / "logs" / "train.jsonl") if row["loss"] is not None]
    parts = np.array_split(np.arange(len(rows)), min(len(rows), CURVE_POINTS)) if rows else []
    train = [
        {"iteration": rows[part[-1]]["iteration"], "loss": float(np.mean([rows[i]["loss"] for i in part]))}
        for part in parts
    ]
    return {"train": train, "validation": read_rows(run / "logs" / "validation.jsonl")}
