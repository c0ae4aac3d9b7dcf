"""Reliability curves as positions for the report, and the calibration errors as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rarevox.pipeline.evaluation.report.charts import axis, percent
from rarevox.pipeline.figures import figure
from rarevox.pipeline.pictures import OKABE_ITO

FEWEST = 20
"""Voxels that a bin must hold to be drawn; the sums of all bins are in metrics.json."""


def reliability_charts(calibration: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """For each structure the frequency over the mean probability of each bin of the voxels near it.

    Args:
        calibration: of :meth:`rarevox.pipeline.evaluation.calibration.measure.Calibration.result`, or None.

    Returns:
        Charts for ``templates/calibration.html``; structures without any voxel to draw are left out.
    """
    charts, unit = [], axis([0.0, 1.0], low=0.0, high=1.0)
    for number, (name, regions) in enumerate((calibration or {"structures": {}})["structures"].items()):
        near = regions["near"]
        dots: list[dict[str, Any]] = []
        for count, probability, reference in zip(near["count"], near["probability"], near["reference"], strict=True):
            if count >= FEWEST:
                p, share = probability / count, reference / count
                said = f"probability {p:.3f}, share {share:.3f}, {count:.0f} voxels"
                dots.append({"x": percent(p, unit), "y": round(100 - percent(share, unit), 2), "said": said})
        if dots:
            said = f"Reliability of {name}: ECE {figure(near['ece'], 4)}. " + "; ".join(dot["said"] for dot in dots)
            points = " ".join(f"{10 * dot['x']:.1f},{10 * dot['y']:.1f}" for dot in dots)
            colour = OKABE_ITO[number % 7]
            charts.append(
                {"name": name, "colour": colour, "x": unit, "y": unit, "dots": dots, "points": points, "said": said}
            )
    return charts


def calibration_lines(calibration: Mapping[str, Any]) -> list[str]:
    """The expected calibration error of each structure, in words.

    >>> calibration_lines({"structures": {"lesion": {"near": {"ece": 0.0312, "mce": 0.2}, "image": {"ece": 1e-4}}}})
    ['calibration error of lesion: 0.0312 near the structure (0.200 in the worst bin), 0.0001 over all voxels']
    """
    return [
        f"calibration error of {name}: {figure(s['near']['ece'], 4)} near the structure ({figure(s['near']['mce'])} in "
        f"the worst bin), {figure(s['image']['ece'], 4)} over all voxels"
        for name, s in calibration["structures"].items()
    ]
