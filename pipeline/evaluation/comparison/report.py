"""The page of a comparison: one HTML file that opens offline, with the difference of every case to be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.evaluation.comparison.stats import DIGITS
from rarevox.pipeline.evaluation.comparison.tables import difference_text, p_text, rank_text, summary
from rarevox.pipeline.evaluation.report.charts import axis, strip
from rarevox.pipeline.figures import interval_text
from rarevox.pipeline.page import write_page
from rarevox.pipeline.pictures import OKABE_ITO

TEMPLATE = Path(__file__).with_name("templates") / "compare.html"
FIRST, SECOND, EQUAL = OKABE_ITO[4], OKABE_ITO[0], "#777777"
"""Colours of the cases that the first and the second evaluation win; shapes (▼, ▲, ●) tell them apart as well."""
SHAPES = {
    "second": (SECOND, "M-4.5 3.5L4.5 3.5L0 -4.5Z"),
    "first": (FIRST, "M-4.5 -3.5L4.5 -3.5L0 4.5Z"),
    "equal": (EQUAL, "M-3.5 0A3.5 3.5 0 1 0 3.5 0A3.5 3.5 0 1 0 -3.5 0Z"),
}


def write_comparison(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Write the page.

    Args:
        path: the ``.html`` file, written atomically.
        result: of :func:`rarevox.pipeline.evaluation.compare.comparison`.
    """
    names = [board["name"] for board in result["evaluations"]]
    return write_page(
        path,
        TEMPLATE,
        title=f"{' against '.join(names) if len(names) < 4 else f'{len(names)} evaluations'}: {result['metric']}",
        result=result,
        summary=summary(result),
        names=names,
        mean=interval_text,
        difference=difference_text,
        pairs=[_pair(result, row["first"], row["second"]) for row in result["overall"]],
        filters={"p": p_text, "rank": rank_text},
    )


def difference_chart(result: Mapping[str, Any], first: str, second: str) -> dict[str, Any] | None:
    """Per structure the difference second − first of every case, over the mean difference and its 95 % interval.

    Cases that the second evaluation wins are blue triangles up, those that the first wins vermilion triangles down,
    equal ones grey dots; where neither direction is better, all are grey. None if no case has a difference.

    Returns:
        What ``strips`` of ``templates/charts.html`` draws, see
        :func:`rarevox.pipeline.evaluation.report.charts.distribution`.
    """
    rows = [row for row in result["pairs"] if (row["first"], row["second"]) == (first, second) and row["n"]]
    if not rows:
        return None
    found = {row["structure"]: case_differences(result, first, second, row["structure"]) for row in rows}
    everything = [difference for cases in found.values() for difference in cases.values()]
    bounds = [edge for row in rows for edge in row["ci95"] if edge is not None]
    scale = axis([0.0, *everything, *bounds])
    sign = {"higher": 1.0, "lower": -1.0, None: 0.0}[result["better"]]
    strips = []
    for row in rows:
        marks = [_mark(case, difference, sign) for case, difference in found[row["structure"]].items()]
        summary = {"mean": row["difference"], "ci95": row["ci95"]}
        strips.append(strip(row["structure"], marks, summary, scale, EQUAL))
    return {"label": f"difference of {result['metric']}: {second} − {first}", "axis": scale, "strips": strips}


def _mark(case: str, difference: float, sign: float) -> dict[str, Any]:
    """A case in the chart of differences."""
    gain = difference * sign
    colour, shape = SHAPES["second" if gain > 0 else "first" if gain < 0 else "equal"]
    return {"case": case, "value": difference, "said": f"{difference:+.3f}", "colour": colour, "shape": shape}


def case_differences(result: Mapping[str, Any], first: str, second: str, structure: str) -> dict[str, float]:
    """The difference second − first of each case that has one.

    >>> cases = [{"case": "a", "structure": "s", "values": {"x": 0.5, "y": 0.75}}]
    >>> case_differences({"cases": cases}, "x", "y", "s")
    {'a': 0.25}
    """
    found = {}
    for row in result["cases"]:
        mine, theirs = row["values"][first], row["values"][second]
        if row["structure"] == structure and mine is not None and math.isfinite(theirs - mine):
            found[row["case"]] = round(theirs - mine, DIGITS)
    return found


def _pair(result: Mapping[str, Any], first: str, second: str) -> dict[str, Any]:
    """What the template shows of one pair."""
    rows = [row for row in result["pairs"] if (row["first"], row["second"]) == (first, second)]
    return {
        "heading": f"{second} − {first}",
        "rows": rows,
        "chart": difference_chart(result, first, second),
    }
