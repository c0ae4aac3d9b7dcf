"""The report of a result: one HTML file that opens anywhere, offline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline.evaluation.figures import curves_figure, distribution_figure, overlay_figure
from pipeline.evaluation.gates import RULES
from pipeline.evaluation.results_table import figure, interval_text
from pipeline.evaluation.viewer import viewer_data
from pipeline.files import finite, write_text

TEMPLATES = Path(__file__).with_name("templates")
MAX_FAILED = 10
"""Failed cases that are drawn; all of them are listed."""

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


def shown_cases(result: Mapping[str, Any]) -> dict[str, str]:
    """The cases to draw and why: best, median and worst by mean Dice over structures, then the failed ones.

    >>> rows = [{"case": c, "dice": d, "status": "ok"} for c, d in (("a", 0.5), ("b", 0.9), ("c", 0.7))]
    >>> shown_cases({"cases": rows, "failed": []})
    {'b': 'best', 'c': 'median', 'a': 'worst'}
    """
    failed = [failure["case"] for failure in result["failed"]]
    ranked = [case for case in case_means(result) if case not in failed]
    shown: dict[str, str] = {}
    if ranked:
        for index, why in ((0, "best"), ((len(ranked) - 1) // 2, "median"), (len(ranked) - 1, "worst")):
            shown.setdefault(ranked[index], why)
    return shown | dict.fromkeys(failed[:MAX_FAILED], "failed")


def write_report(
    path: str | Path,
    result: Mapping[str, Any],
    *,
    title: str,
    cases_images: Sequence[CaseImages] = (),
    structures: Mapping[str, Any] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report: figures, pictures, a slice viewer and the table of all cases in one file without any request.

    Args:
        path: the ``.html`` file, written atomically.
        result: of :func:`pipeline.evaluation.aggregate.aggregate` (or read back from ``metrics.json``).
        title: the heading.
        cases_images: the cases to draw, usually those of :func:`shown_cases`.
        structures: name → value or values, for the outlines; None takes those of the result.
        curves: ``train`` and ``validation`` records, see :func:`pipeline.evaluation.figures.curves_figure`.
        context: what else the reader should know, name → text (network, data, command).
    """
    why = shown_cases(result)
    structures = structures or result["conventions"]["structure_values"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure}
    html = environment.get_template("report.html").render(
        title=title,
        result=result,
        headline=interval_text(result["mean_dice"], result["mean_dice_ci95"]),
        intervals={name: interval_text(s["dice"]["mean"], s["dice"]["ci95"]) for name, s in _items(result)},
        surface=_columns(result, "surface_dice"),
        distributions=_distributions(result),
        curves=curves_figure(curves) if curves else None,
        cases=[_case(images, result, structures, why.get(images.case, "")) for images in cases_images],
        columns=_table_columns(result),
        statuses=_STATUS,
        rules=RULES,
        context=context or {},
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "report.js").read_text(encoding="utf-8"),
    )
    write_text(path, html)
    return Path(path)


def _case(images: CaseImages, result: Mapping[str, Any], structures: Mapping[str, Any], why: str) -> dict[str, Any]:
    """What the template shows of one case."""
    rows = [row for row in result["cases"] if row["case"] == images.case]
    dice = {row["structure"]: figure(row["dice"]) for row in rows}
    reason = next((row["reason"] for row in rows if row["status"] == "failed"), "")
    mean = case_means({**result, "cases": rows}).get(images.case)
    heading = f"{why}: {images.case}" if why else images.case
    heading = f"{heading[:1].upper()}{heading[1:]}, mean Dice {figure(mean)}"
    arrays = images.image, images.prediction, images.reference, images.spacing_mm, structures
    each = ", ".join(f"{name} {value}" for name, value in dice.items())
    data = viewer_data(*arrays, affine=images.affine)
    return {
        "heading": heading,
        "reason": reason,
        "each": each,
        "picture": overlay_figure(*arrays, f"{images.case}: Dice {each}", affine=images.affine),
        "alt": f"{heading}. Three planes with reference (solid) and prediction (dashed) outlined. Dice: {each}.",
        "data": json.dumps(finite(data)).replace("</", "<\\/"),
    }


def _distributions(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """The distribution of Dice, and of HD95 where it was measured."""
    pictures = []
    for column, label in (("dice", "Dice"), ("hd95_mm", "HD95 (mm)")):
        picture = distribution_figure(result, column, label)
        if picture:
            alt = (
                f"Distribution of {label} over the cases, one row per structure; the figures are in the table of cases."
            )
            pictures.append({"picture": picture, "alt": alt, "label": label})
    return pictures


def _table_columns(result: Mapping[str, Any]) -> dict[str, str]:
    """The columns of the case table that hold a figure at all, and their headings."""
    headings = {
        "dice": "Dice",
        "iou": "IoU",
        "precision": "precision",
        "recall": "recall",
        "hd95_mm": "HD95 mm",
        "assd_mm": "ASSD mm",
        **{column: f"surface Dice {column.split('_')[-1]}" for column in _columns(result, "surface_dice")},
        "reference_ml": "reference ml",
        "volume_ml": "prediction ml",
        "lesion_f1": "lesion F1",
    }
    return {c: heading for c, heading in headings.items() if any(row.get(c) is not None for row in result["cases"])}


def _columns(result: Mapping[str, Any], start: str) -> list[str]:
    return sorted({column for _, summary in _items(result) for column in summary if column.startswith(start)})


def _items(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(result["structures"].items())
