"""The report of a result: one HTML file that opens anywhere, offline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.report.calibration_chart import reliability_charts
from rarevox.pipeline.evaluation.report.charts import curve_charts, distribution, percent, size_charts
from rarevox.pipeline.evaluation.report.curves_chart import operating_charts
from rarevox.pipeline.evaluation.report.results_table import empty_references, failures_by_reason
from rarevox.pipeline.evaluation.report.viewer import MAX_BYTES, viewer_data
from rarevox.pipeline.figures import figure, interval_text, rules_text
from rarevox.pipeline.gates import RULES
from rarevox.pipeline.page import write_page

TEMPLATE = Path(__file__).with_name("templates") / "report.html"
MAX_FAILING = 40
"""Failing cases that are drawn; all of them are listed."""
PAGE_BYTES = 20 * MAX_BYTES
"""Of all cases in the viewer together: of more than 20, each gets less and is thinned."""

_STATUS = {
    "ok": "",
    "empty_both": "both empty",
    "empty_reference": "reference empty",
    "empty_prediction": "prediction empty",
    "failed": "failed",
}


@dataclass(frozen=True)
class CaseImages:
    """A case to be drawn.

    Attributes:
        case: its name, as in the rows.
        image: (X, Y, Z) intensities of one channel, or None.
        prediction: (X, Y, Z) labels, or None if there is none.
        reference: (X, Y, Z) labels.
        affine: 4×4, voxel indices to RAS+ millimetres.
    """

    case: str
    image: np.ndarray | None
    prediction: np.ndarray | None
    reference: np.ndarray
    affine: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel edge lengths: the lengths of the affine's columns."""
        return tuple(float(length) for length in np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0))


def case_means(result: Mapping[str, Any]) -> dict[str, float]:
    """The mean Dice of each case that has one, over the structures of ``mean_over`` (else all), the best first.

    >>> rows = [{"case": "a", "dice": 0.5}, {"case": "b", "dice": 0.9}, {"case": "b", "dice": None}]
    >>> case_means({"cases": rows})
    {'b': 0.9, 'a': 0.5}
    """
    values: dict[str, list[float]] = {}
    over = result.get("conventions", {}).get("mean_over")
    for row in result["cases"]:
        if over is not None and row["structure"] not in over:
            continue
        if row["dice"] is not None and math.isfinite(row["dice"]):
            values.setdefault(row["case"], []).append(row["dice"])
    means = {case: float(np.mean(dice)) for case, dice in values.items()}
    return dict(sorted(means.items(), key=lambda item: (-item[1], item[0])))


def failing_cases(result: Mapping[str, Any]) -> dict[str, str]:
    """The cases that failed, missed a structure altogether, or are under a gate for the worst case; and which it was.

    >>> rows = [{"case": "a", "structure": "s", "dice": 0.0, "status": "ok"}]
    >>> failing_cases({"cases": rows, "failed": [{"case": "b", "reason": "no prediction"}]})
    {'b': 'failed', 'a': 's missed'}
    """
    failing = {failure["case"]: "failed" for failure in result["failed"]}
    minima = {gate["structure"]: gate["minimum"] for gate in result.get("gates") or [] if gate["rule"] == "worst"}
    for row in result["cases"]:
        known = row["dice"] is not None and math.isfinite(row["dice"])
        if known and row["dice"] == 0 and row["status"] in ("ok", "empty_prediction"):
            failing.setdefault(row["case"], f"{row['structure']} missed")
        elif known and row["dice"] < minima.get(row.get("structure"), 0):
            failing.setdefault(row["case"], f"{row['structure']} under the gate")
    return failing


def shown_cases(result: Mapping[str, Any]) -> dict[str, str]:
    """The cases to draw and why: best, median and worst by mean Dice over structures, then every failing one.

    >>> rows = [{"case": c, "dice": d, "status": "ok"} for c, d in (("a", 0.5), ("b", 0.9), ("c", 0.7))]
    >>> shown_cases({"cases": rows, "failed": []})
    {'b': 'best', 'c': 'median', 'a': 'worst'}
    >>> shown_cases({"cases": rows[:1], "failed": []})  # alone it is none of them
    {'a': ''}
    """
    failed = {failure["case"] for failure in result["failed"]}
    ranked = [case for case in case_means(result) if case not in failed]
    shown: dict[str, str] = {}
    if len(ranked) == 1:
        shown[ranked[0]] = ""
    elif ranked:
        for index, why in ((0, "best"), ((len(ranked) - 1) // 2, "median"), (len(ranked) - 1, "worst")):
            shown.setdefault(ranked[index], why)
    for case, why in list(failing_cases(result).items())[:MAX_FAILING]:
        shown[case] = f"{shown[case]}, {why}" if shown.get(case) else why
    return shown


def write_report(
    path: str | Path,
    result: Mapping[str, Any],
    *,
    title: str,
    cases_images: Iterable[CaseImages] = (),
    structures: Mapping[str, Any] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report: figures, pictures, a slice viewer and the table of all cases in one file without any request.

    Args:
        path: the ``.html`` file, written atomically.
        result: of :func:`rarevox.pipeline.evaluation.metrics.aggregate.aggregate` (or read back from ``metrics.json``).
        title: the heading.
        cases_images: the cases to draw, those of :func:`shown_cases` or some of them; taken one by one, so that a
            generator holds only one case in memory.
        structures: name → value or values, for the outlines; None takes those of the result.
        curves: ``train`` and ``validation`` records, see
            :func:`rarevox.pipeline.evaluation.report.charts.curve_charts`.
        context: what else the reader should know, name → text (network, data, command).
    """
    why, failing = shown_cases(result), failing_cases(result)
    structures = structures or result["conventions"]["structure_values"]
    limit = min(MAX_BYTES, PAGE_BYTES // max(1, len(why)))
    cases = [_case(images, result, structures, why.get(images.case, ""), limit) for images in cases_images]
    parts: dict[str, Any] = {
        "distributions": _distributions(result),
        "sizes": size_charts(result),
        "lesion_sizes": _lesion_sizes(result),
        "curves": curve_charts(curves) if curves else [],
        "reliability": reliability_charts(result.get("calibration")),
        "operating": operating_charts(result.get("curves")),
        "cases": [case | {"failing": case["case"] in failing} for case in cases],
    }
    return write_page(
        path,
        TEMPLATE,
        title=title,
        script=("page.js", "viewer.js") if cases else ("page.js",),
        result=result,
        failures=failures_by_reason(result["failed"]),
        tiles=_tiles(result),
        intervalled=figure(result["mean_dice_ci95"][0]) != figure(None),
        sections=_sections(result, parts),
        interval=interval_text,
        surface=_columns(result, "surface_dice"),
        empty_references=empty_references(result),
        left_out=max(0, len(failing) - MAX_FAILING),
        drawn={case["case"] for case in cases},
        columns=_table_columns(result),
        statuses=_STATUS,
        rules=RULES,
        context={
            name: rules_text(text) if isinstance(text, Mapping) else text for name, text in (context or {}).items()
        },
        calibration=result.get("calibration"),
        detection=result.get("curves"),
        **parts,
    )


def _tiles(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline of each structure: mean Dice, its interval, and both on a bar from 0 to 1."""
    tiles, unit = [], {"low": 0.0, "high": 1.0}
    for name, summary in _items(result):
        mean, (low, high) = summary["dice"]["mean"], summary["dice"]["ci95"]
        tile = {"name": name, "mean": mean, "low": low, "high": high, "bar": None, "at": None}
        if mean is not None and math.isfinite(mean):
            tile["at"] = percent(mean, unit)
        if low is not None and math.isfinite(low):
            tile["bar"] = [percent(low, unit), round(percent(high, unit) - percent(low, unit), 2)]
        tiles.append(tile)
    return tiles


def _sections(result: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    """Anchor → name of the sections that the page has."""
    there = {"gates": result.get("gates"), "structures": True, "distributions": parts["distributions"]}
    there |= {
        "calibration": result.get("calibration"),
        "operating": parts["operating"],
        "sizes": parts["sizes"] or parts["lesion_sizes"],
        "curves": parts["curves"],
        "shown": parts["cases"],
    }
    there |= {"failed": result["failed"], "table": True, "how": True}
    return {anchor: name for anchor, name in _NAMES.items() if there[anchor]}


_NAMES = {  # in the order of the page
    "gates": "Gates",
    "structures": "Structures",
    "distributions": "Distributions",
    "sizes": "By size",
    "shown": "Cases",
    "calibration": "Calibration",
    "operating": "Thresholds",
    "curves": "Learning curves",
    "failed": "Failed cases",
    "table": "All cases",
    "how": "How it was made",
}


def _case(
    images: CaseImages, result: Mapping[str, Any], structures: Mapping[str, Any], why: str, max_bytes: int
) -> dict[str, Any]:
    """What the template shows of one case."""
    rows = [row for row in result["cases"] if row["case"] == images.case]
    mean = figure(case_means({**result, "cases": rows}).get(images.case))
    heading = f"{why[:1].upper()}{why[1:]}: {images.case}" if why else images.case  # a name stays as it is
    arrays = images.image, images.prediction, images.reference, images.spacing_mm, structures
    data = viewer_data(*arrays, affine=images.affine, max_bytes=max_bytes)
    return {
        "case": images.case,
        "why": why,
        "mean": mean,
        "heading": f"{heading}, mean Dice {mean}",
        "reason": next((row["reason"] for row in rows if row["status"] == "failed"), ""),
        "rows": rows,
        "data": data,
    }


def _distributions(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The distributions of the figures that tell most: overlap, distance, volume and lesions."""
    headings = {"dice": "Dice"} | {c: _surface_heading(c) for c in _columns(result, "surface_dice")[:1]}
    headings |= {"hd95_mm": "HD95, mm", "volume_error_ml": "volume error, ml", "lesion_f1": "lesion F1"}
    gates = [gate for gate in result.get("gates") or [] if gate["minimum"] is not None]
    charts = (distribution(result, c, label, gates=gates if c == "dice" else ()) for c, label in headings.items())
    return [chart for chart in charts if chart]


def _lesion_sizes(result: Mapping[str, Any]) -> dict[str, Any]:
    """The lesions by size of each structure that comes in several pieces: three lesions in two cases, or more."""
    strata = {name: summary.get("by_lesion_size") or {} for name, summary in _items(result)}
    lesions = {name: sum(part["reference"] for part in classes.values()) for name, classes in strata.items()}
    return {name: classes for name, classes in strata.items() if lesions[name] >= 1.5 * max(1, result["n_cases"])}


def _surface_heading(column: str) -> str:
    return f"surface Dice {column.split('_')[-1]}"


def _table_columns(result: Mapping[str, Any]) -> dict[str, str]:
    """The columns of the case table that hold a figure at all, and their headings."""
    headings = {
        "dice": "Dice",
        "iou": "IoU",
        "precision": "precision",
        "recall": "recall",
        "hd95_mm": "HD95 mm",
        "assd_mm": "ASSD mm",
        **{column: _surface_heading(column) for column in _columns(result, "surface_dice")},
        "reference_ml": "reference ml",
        "volume_ml": "prediction ml",
        "lesion_f1": "lesion F1",
        "pq": "PQ",
        "cldice": "clDice",
    }
    return {c: heading for c, heading in headings.items() if any(row.get(c) is not None for row in result["cases"])}


def _columns(result: Mapping[str, Any], start: str) -> list[str]:
    return sorted({column for _, summary in _items(result) for column in summary if column.startswith(start)})


def _items(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(result["structures"].items())
