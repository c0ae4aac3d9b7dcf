"""Precision-recall and FROC curves as positions for the report, and their figures as lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rarevox.pipeline.evaluation.operating.froc import FALSE_LESIONS
from rarevox.pipeline.evaluation.report.calibration_chart import calibration_lines
from rarevox.pipeline.evaluation.report.charts import axis, percent
from rarevox.pipeline.figures import figure, interval_text
from rarevox.pipeline.pictures import OKABE_ITO


def operating_charts(curves: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """For each structure precision over recall of voxels, and the sensitivity over false lesions a scan.

    Args:
        curves: of :meth:`rarevox.pipeline.evaluation.operating.curves.Curves.result`, or None.

    Returns:
        Charts for ``templates/operating.html``; curves without two points are left out.
    """
    charts, unit = [], axis([0.0, 1.0], low=0.0, high=1.0)
    for number, (name, one) in enumerate((curves or {"structures": {}})["structures"].items()):
        look = {"name": name, "colour": OKABE_ITO[number % 7], "y": unit}
        voxels = one["voxels"]
        points = [
            (percent(r, unit), percent(p, unit))
            for r, p in zip(voxels["recall"], voxels["precision"], strict=True)
            if _known(r, p)
        ]
        here = voxels["threshold"].index(one["threshold"])
        own = voxels["recall"][here], voxels["precision"][here]
        said = f"{name}, voxels: average precision {figure(voxels['average_precision'])}; at the run's threshold "
        said += f"{one['threshold']:.4g} precision {figure(own[1])}, recall {figure(own[0])}"
        dot = (percent(own[0], unit), percent(own[1], unit)) if _known(*own) else None
        if len(points) > 1:
            charts.append(look | _chart(points, dot, said) | {"x": unit, "label": f"{name}: precision over recall"})
        if one.get("lesions", {}).get("reference"):
            charts.append(look | _froc(name, one))
    return charts


def _froc(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Sensitivity over false lesions a scan, from 1/8 to 8; what lies beyond stands at the ends.

    Where all of it lies at the left end (a structure of one component) a sentence, ``note``, is all there is to show.
    """
    lesions, unit = one["lesions"], axis([0.0, 1.0], low=0.0, high=1.0)
    scale: dict[str, Any] = {"low": FALSE_LESIONS[0], "high": FALSE_LESIONS[-1], "log": True}
    scale |= {"ticks": [{"text": f"{rate:g}", "at": percent(rate, scale)} for rate in FALSE_LESIONS]}
    points = [
        (percent(max(rate, FALSE_LESIONS[0]), scale), percent(share, unit))
        for rate, share in zip(lesions["false_per_scan"], lesions["sensitivity"], strict=True)
    ]
    here = lesions["confidence"].index(one["confidence"])
    rate, share = lesions["false_per_scan"][here], lesions["sensitivity"][here]
    score = interval_text(lesions["froc_score"], lesions["froc_score_ci95"])
    said = f"{name}, lesions: FROC score {score}; as the run is set {figure(share)} found at {rate:.3g} false a scan"
    dot = percent(max(rate, FALSE_LESIONS[0]), scale), percent(share, unit)
    beyond = f"; the run as it is set, at {rate:.3g}, lies beyond" if rate > FALSE_LESIONS[-1] else ""
    if max(lesions["false_per_scan"], default=0.0) <= FALSE_LESIONS[0]:
        most = max(lesions["false_per_scan"], default=0.0)
        note = f"Lesions: {figure(share)} found, with {most:.3g} false ones a scan at the most, whatever the confidence"
        return {"note": f"{note}: no curve from {FALSE_LESIONS[0]:g} on.", "said": said}
    return _chart(points, dot, said) | {"x": scale, "label": f"{name}: sensitivity over false lesions a scan{beyond}"}


def _chart(points: Sequence[tuple[float, float]], dot: tuple[float, float] | None, said: str) -> dict[str, Any]:
    line = " ".join(f"{10 * x:.1f},{1000 - 10 * y:.1f}" for x, y in points)
    return {
        "points": line,
        "dots": [{"x": dot[0], "y": round(100 - dot[1], 2), "said": said}] if dot else [],
        "said": said,
    }


def _known(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def probability_lines(result: Mapping[str, Any]) -> list[str]:
    """The figures of an evaluation's ``calibration`` and ``curves``, where it has them, in words."""
    calibration, curves = result.get("calibration"), result.get("curves")
    return [*(calibration_lines(calibration) if calibration else ()), *(curve_lines(curves) if curves else ())]


def curve_lines(curves: Mapping[str, Any]) -> list[str]:
    """The figures of the curves of each structure, in words."""
    lines = []
    for name, one in curves["structures"].items():
        said = f"average precision of {name} {figure(one['voxels']['average_precision'])} (voxels)"
        lesions = one.get("lesions", {})
        if lesions.get("reference"):
            score = interval_text(lesions["froc_score"], lesions["froc_score_ci95"])
            few, many = min(FALSE_LESIONS), max(FALSE_LESIONS)
            said += f", FROC score {score} (lesions found where {few:g} to {many:g} false ones a scan are allowed, "
            said += "at thresholds that fit, not the run's)"
        lines.append(said)
    return lines
