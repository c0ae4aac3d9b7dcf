"""How well one label map matches another: a row of hard figures per case and structure, on the grid that came in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.centreline import centreline_dice
from rarevox.pipeline.evaluation.metrics.lesions import lesion_scores
from rarevox.pipeline.evaluation.metrics.options import (
    COUNTS,
    LESION_COUNTS,
    LESION_SIZE_DICE,
    LESION_SIZES,
    VOLUMES,
    MetricOptions,
    Structures,
    distance_columns,
    foreground,
    overlap_columns,
    quality_columns,
    surface_dice_columns,
)
from rarevox.pipeline.evaluation.metrics.panoptic import panoptic_scores
from rarevox.pipeline.evaluation.metrics.surface import surface_distances
from rarevox.transforms.bounding_box import bounding_box


def case_rows(
    case: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    structures: Structures,
    *,
    options: MetricOptions | None = None,
) -> list[dict[str, Any]]:
    """One row of figures for each structure of one case.

    Voxels whose reference is ``options.ignored_value`` count for nothing: neither map has a structure there.

    With the counts tp, fp, fn of voxels: Dice = 2tp/(2tp+fp+fn), IoU = tp/(tp+fp+fn), precision = tp/(tp+fp),
    recall = tp/(tp+fn). ``status`` is ``ok``, ``empty_reference``, ``empty_prediction`` or ``empty_both``, and the
    empty rule decides the ratios of the last three; figures that are not defined are NaN.

    Args:
        case: its name.
        prediction: (X, Y, Z) label values, whole numbers or bool.
        reference: likewise, on the same grid.
        spacing_mm: voxel edge lengths.
        structures: name → label value, or the values whose union it is. The background (0) gets no row unless asked.
        options: the conventions; the defaults if None.

    Raises:
        ValueError: shapes differ, not three axes, labels that are not whole numbers, or a spacing that is not positive.

    Example, one of two voxels found, of 2 × 1 × 1 mm:
        >>> reference = np.array([1, 1, 0], np.uint8).reshape(3, 1, 1)
        >>> prediction = np.array([0, 1, 0], np.uint8).reshape(3, 1, 1)
        >>> row = case_rows("a", prediction, reference, (2, 1, 1), {"lesion": 1})[0]
        >>> row["status"], round(row["dice"], 3), row["recall"], row["reference_ml"], row["hd_mm"]
        ('ok', 0.667, 0.5, 0.004, 2.0)
    """
    options = options or MetricOptions()
    prediction, reference = _checked(prediction, "prediction"), _checked(reference, "reference")
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} must be on the same grid")
    if len(spacing_mm) != 3 or not all(float(s) > 0 and math.isfinite(s) for s in spacing_mm):
        raise ValueError(f"spacing_mm is {tuple(spacing_mm)}; expected three positive lengths")
    if options.ignored_value is not None:
        ignored = reference == options.ignored_value
        prediction = np.where(ignored, reference, prediction) if ignored.any() else prediction
    if prediction.flags.f_contiguous and reference.flags.f_contiguous and not options.centreline:
        # No other figure depends on the order of the axes, and NIfTI's order is walked fastest through its transpose.
        prediction, reference, spacing_mm = prediction.T, reference.T, tuple(spacing_mm)[::-1]
    rows = []
    for name, value in foreground(structures, options).items():
        # The masks are handed over, not kept here, so that _row can let go of them once it has its crops.
        rows.append(_row(case, name, _mask(prediction, value), _mask(reference, value), spacing_mm, options))
    return rows


def failed_rows(
    case: str,
    structures: Structures,
    reason: str,
    *,
    reference: np.ndarray | None = None,
    spacing_mm: Sequence[float] | None = None,
    options: MetricOptions | None = None,
) -> list[dict[str, Any]]:
    """The rows of a case without a usable prediction: counted with overlap 0 under every rule, never dropped.

    If the reference is known, its voxels enter the pooled sums as missed (fn) and its volume is stated. Distances are
    the penalties where the options give any, so that a failure is never better than an empty prediction.

    >>> row = failed_rows("a", {"lesion": 1}, "no prediction")[0]
    >>> row["status"], row["dice"], row["reason"]
    ('failed', 0.0, 'no prediction')
    """
    options = options or MetricOptions()
    rows = []
    for name, value in foreground(structures, options).items():
        row = _blank(case, name, options) | {"status": "failed", "reason": reason}
        row |= dict.fromkeys(overlap_columns(options), 0.0) | _penalties(options)
        if reference is not None and spacing_mm is not None:
            mask = _mask(np.asarray(reference), value)
            known = _row(case, name, np.zeros_like(mask), mask, spacing_mm, replace(options, distances=False))
            kept = (*COUNTS, "reference_ml", *LESION_COUNTS, *LESION_SIZES, *LESION_SIZE_DICE)
            row |= {column: known[column] for column in kept if column in known}
        rows.append(row)
    return rows


def _checked(labels: np.ndarray, what: str) -> np.ndarray:
    """The label map as uint8 where its values fit, so that every later pass reads one byte a voxel."""
    labels = np.asarray(labels)
    if labels.ndim != 3:
        raise ValueError(f"{what} has shape {labels.shape}; expected three axes (X, Y, Z)")
    if labels.dtype.kind not in "biu":
        raise ValueError(f"{what} is {labels.dtype}; expected whole-number labels (convert soft maps with argmax)")
    if labels.dtype == np.uint8 or labels.dtype == bool:
        return labels.view(np.uint8)
    fits = labels.size == 0 or (labels.min() >= 0 and labels.max() <= 255)
    return labels.astype(np.uint8) if fits else labels


def _mask(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Where ``labels`` has one of ``values``; a value that the type cannot hold is nowhere."""
    mask = np.zeros(labels.shape, bool) if len(values) != 1 else labels == values[0]
    for value in values if len(values) != 1 else ():
        mask |= labels == value
    return mask


def _blank(case: str, structure: str, options: MetricOptions) -> dict[str, Any]:
    """A row with every column in its place and no figure yet."""
    columns = [*overlap_columns(options)[:4], *VOLUMES, *COUNTS, *distance_columns(options)]
    columns += [c for c in overlap_columns(options)[4:] if not c.startswith("lesion")] + quality_columns(options)
    if options.lesions:
        columns += [*LESION_COUNTS, *(c for c in overlap_columns(options) if c.startswith("lesion"))]
        columns += [*LESION_SIZES, *LESION_SIZE_DICE]
    return {"case": case, "structure": structure, "status": "ok", "reason": ""} | dict.fromkeys(columns, math.nan)


def _row(
    case: str,
    name: str,
    predicted: np.ndarray,
    referenced: np.ndarray,
    spacing: Sequence[float],
    options: MetricOptions,
) -> dict[str, Any]:
    """The figures of one structure from its two masks."""
    row, voxel_ml = _blank(case, name, options), float(np.prod(spacing)) / 1000.0
    n_predicted, n_reference = int(np.count_nonzero(predicted)), int(np.count_nonzero(referenced))
    tp = int(np.count_nonzero(predicted & referenced)) if n_predicted and n_reference else 0
    row |= {"tp": tp, "fp": n_predicted - tp, "fn": n_reference - tp}
    row["volume_ml"], row["reference_ml"] = n_predicted * voxel_ml, n_reference * voxel_ml
    row["volume_error_ml"] = row["volume_ml"] - row["reference_ml"]
    row["false_positive_ml"] = row["fp"] * voxel_ml
    if (options.lesions and (n_predicted or n_reference)) or (_needs_shape(options) and n_predicted and n_reference):
        box = bounding_box(predicted | referenced)
        assert box is not None
        predicted, referenced = predicted[box].copy(), referenced[box].copy()
        row |= _shape_scores(predicted, referenced, spacing, options)
    if not (n_predicted and n_reference):
        found = row | _empty(bool(n_predicted), bool(n_reference), options)
        # Of lesions nothing need be missed or false where voxels are: none of them may count.
        counting = row.get("lesions_reference", 1) or row.get("lesions_predicted", 1)
        return found | {column: row[column] for column in row if not counting and column.startswith("lesion")}
    row |= {"dice": 2 * tp / (n_predicted + n_reference), "iou": tp / (n_predicted + n_reference - tp)}
    return row | {"precision": tp / n_predicted, "recall": tp / n_reference}


def _shape_scores(
    predicted: np.ndarray, referenced: np.ndarray, spacing: Sequence[float], options: MetricOptions
) -> dict[str, float]:
    """The figures that need geometry, from the two masks cropped to their union."""
    scores: dict[str, float] = {}
    if options.lesions:
        scores |= _lesions(predicted, referenced, spacing, options)
    if options.distances and predicted.any() and referenced.any():
        distances = surface_distances(predicted, referenced, spacing, surface=options.surface)
        scores |= {"hd95_mm": distances.hausdorff_mm(95.0), "hd_mm": distances.hausdorff_mm()}
        scores["assd_mm"] = distances.mean_mm()
        for column, tolerance in zip(surface_dice_columns(options), options.tolerances_mm, strict=True):
            scores[column] = distances.dice(tolerance)
    if options.panoptic:
        near, least = options.connectivity, options.panoptic_iou
        scores |= panoptic_scores(predicted, referenced, connectivity=near, iou=least)
    if options.centreline:
        scores["cldice"] = centreline_dice(predicted, referenced)
    return scores


def _needs_shape(options: MetricOptions) -> bool:
    return options.distances or options.panoptic or options.centreline


def _lesions(
    predicted: np.ndarray, referenced: np.ndarray, spacing: Sequence[float], options: MetricOptions
) -> dict[str, float]:
    """The lesion-wise figures under the options; the empty rule holds where no lesion counts on either side."""
    scores = lesion_scores(
        predicted,
        referenced,
        spacing,
        connectivity=options.connectivity,
        dilation=options.lesion_dilation,
        min_ml=options.lesion_min_ml,
        penalty_mm=options.lesion_penalty_mm,
        surface=options.surface,
        sizes_ml=options.lesion_sizes_ml,
    )
    if not scores["lesions_reference"] and not scores["lesions_predicted"]:
        scores |= dict.fromkeys((c for c in overlap_columns(options) if c.startswith("lesion")), _BOTH[options.empty])
        scores |= {"lesion_hd95_mm": 0.0} if options.lesion_penalty_mm is not None else {}
    return scores


def _empty(predicted: bool, referenced: bool, options: MetricOptions) -> dict[str, Any]:
    """Status, reason, ratios and distances of a row with at least one empty mask."""
    both = not predicted and not referenced
    status = "empty_both" if both else "empty_prediction" if referenced else "empty_reference"
    row: dict[str, Any] = {"status": status, "reason": _REASONS[status]}
    ratio = {"one": float(both), "zero": 0.0, "nan": 0.0 if referenced else math.nan}[options.empty]
    row |= dict.fromkeys(overlap_columns(options), ratio)
    row |= {name: 0.0 if both and not math.isnan(p) else p for name, p in _penalties(options).items()}
    if both and options.lesions:
        row |= dict.fromkeys((*LESION_COUNTS, *LESION_SIZES), 0)
    return row


def _penalties(options: MetricOptions) -> dict[str, float]:
    """What the distances are where there is nothing to measure; NaN without a penalty."""
    penalties = dict.fromkeys(distance_columns(options), options.distance_penalty_mm)
    penalties |= {"lesion_hd95_mm": options.lesion_penalty_mm} if "lesion_hd95_mm" in penalties else {}
    return {name: math.nan if penalty is None else float(penalty) for name, penalty in penalties.items()}


_BOTH = {"one": 1.0, "nan": math.nan, "zero": 0.0}
"""What a ratio is where there is nothing on either side."""
_REASONS = {
    "empty_both": "neither the reference nor the prediction has this structure",
    "empty_prediction": "the prediction has no voxel of this structure",
    "empty_reference": "the reference has no voxel of this structure",
}
