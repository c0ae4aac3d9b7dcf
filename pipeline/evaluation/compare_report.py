"""The page of a comparison: one HTML file that opens offline, with the difference of every case to be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline.evaluation.compare_stats import DIGITS
from pipeline.evaluation.compare_tables import difference_text, p_text, rank_text, summary
from pipeline.evaluation.figures import OKABE_ITO, png
from pipeline.evaluation.results_table import figure, interval_text
from pipeline.files import write_text

TEMPLATES = Path(__file__).with_name("templates")
FIRST, SECOND, EQUAL = OKABE_ITO[4], OKABE_ITO[0], "#777777"
"""Colours of the cases that the first and the second evaluation win; shapes (▼, ▲, ●) tell them apart as well."""


def write_comparison(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Write the page.

    Args:
        path: the ``.html`` file, written atomically.
        result: of :func:`pipeline.evaluation.compare.comparison`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "p": p_text, "rank": rank_text}
    names = [board["name"] for board in result["evaluations"]]
    html = environment.get_template("compare.html").render(
        title=f"{' against '.join(names) if len(names) < 4 else f'{len(names)} evaluations'}: {result['metric']}",
        result=result,
        summary=summary(result),
        names=names,
        mean=interval_text,
        difference=difference_text,
        pairs=[_pair(result, row["first"], row["second"]) for row in result["overall"]],
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "report.js").read_text(encoding="utf-8"),
    )
    write_text(path, html)
    return Path(path)


def difference_figure(result: Mapping[str, Any], first: str, second: str) -> str | None:
    """Per structure the difference second − first of every case, over the mean difference and its 95 % interval.

    Cases that the second evaluation wins are blue triangles up, those that the first wins vermilion triangles down,
    equal ones grey dots; where neither direction is better, all are grey. None if no case has a difference.

    Returns:
        The PNG, base64.
    """
    from matplotlib.figure import Figure

    rows = [row for row in result["pairs"] if (row["first"], row["second"]) == (first, second) and row["n"]]
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 1.1 + 0.7 * len(rows)), layout="constrained")
    ax, rng = figure.subplots(), np.random.default_rng(0)
    ax.axvline(0.0, color="#333333", linewidth=1.0)
    for height, row in enumerate(rows):
        found = case_differences(result, first, second, row["structure"])
        drawn = np.array(list(found.values()))
        gain = drawn * {"higher": 1.0, "lower": -1.0, None: 0.0}[result["better"]]
        place = height + rng.uniform(-0.22, 0.22, len(drawn))
        for here, colour, marker in ((gain > 0, SECOND, "^"), (gain < 0, FIRST, "v"), (gain == 0, EQUAL, "o")):
            ax.scatter(drawn[here], place[here], s=16, color=colour, marker=marker, alpha=0.65, linewidths=0)
        low, high = row["ci95"]
        if low is not None and math.isfinite(low):
            ax.plot([low, high], [height, height], color="black", linewidth=2.4, solid_capstyle="butt")
        ax.plot([row["difference"]], [height], color="black", marker="D", markersize=6)
    ax.set_yticks(range(len(rows)), [row["structure"] for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(f"difference of {result['metric']}: {second} − {first} (diamond: mean, bar: 95 % interval)")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return png(figure)


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
    said = "; ".join(f"{row['structure']} {difference_text(row['difference'], row['ci95'])}" for row in rows)
    return {
        "heading": f"{second} − {first}",
        "rows": rows,
        "picture": difference_figure(result, first, second),
        "alt": f"Difference of {result['metric']} of every case, {second} minus {first}. Means: {said}.",
    }
