"""A monitor's charts: table on the screen, pictures, and one HTML file that opens offline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rarevox.pipeline.console import Console
from rarevox.pipeline.figures import figure
from rarevox.pipeline.pictures import OKABE_ITO, svg
from rarevox.pipeline.review.page import write_review
from rarevox.pipeline.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LISTED = 300
"""Cases of each chart that the page lists; the JSON holds all."""
_SMOOTH = 0.2
_WIDTH = 110


def print_monitor(result: Mapping[str, Any]) -> None:
    """The table and how the figures came about, on standard output."""
    out = Console()
    out = out if out.is_terminal else Console(width=_WIDTH)
    out.print(monitor_table(result))
    out.say("[dim]{}[/dim]", summary(result))


def monitor_table(result: Mapping[str, Any]) -> Table:
    """A row for each chart."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("structure", overflow="fold")
    table.add_column(result["by"] or "group", overflow="fold")
    for heading in ("n", "failed", "baseline median", "latest median", "sum / limit", "state"):
        table.add_column(heading, justify="right")
    for chart in result["charts"]:
        style = "red" if chart["state"] == "alarm" else None
        cells = [chart["structure"], chart["group"], str(chart["n"]), str(chart["n_failed"])]
        cells += [figure(chart["baseline"]["median"]), figure(chart["latest"]["median"]), sum_text(chart)]
        table.add_row(*cells, state_text(chart), style=style)
    return table


def summary(result: Mapping[str, Any]) -> str:
    """What the charts stand on, in one line."""
    failed = f", {result['n_failed']} failed (Dice 0)" if result["n_failed"] else ""
    cases = counted(result["n_cases"], "case")
    return (
        f"{cases}{failed}, {result['first_date']} to {result['last_date']}; latest: up to 20 cases; "
        f"baseline: {result['conventions']['baseline']}; false alarms: {result['conventions']['false_alarms']}"
    )


def state_text(chart: Mapping[str, Any]) -> str:
    """The state of a chart; with too few cases, how many it needs.

    >>> state_text({"state": "too few cases", "baseline": {"n": 12, "wanted": 30}})
    'too few cases (12 of 30)'
    """
    if chart["state"] != "too few cases":
        return str(chart["state"])
    return f"too few cases ({chart['baseline']['n']} of {chart['baseline']['wanted']})"


def sum_text(chart: Mapping[str, Any]) -> str:
    """The cumulative sum after the last case, and its limit."""
    last = chart["cases"][-1]["sum"] if chart["cases"] else None
    return "–" if chart["limit"] is None else f"{figure(last, 1)} / {figure(chart['limit'], 1)}"


def alarm_text(chart: Mapping[str, Any], alarm: Mapping[str, Any] | None = None) -> str:
    """The alarm of a chart (without one, that which stands) as a sentence; empty if none stands."""
    if alarm is None:
        if chart["state"] != "alarm":
            return ""
        alarm = chart["alarms"][-1]
    group = "" if chart["group"] == "all" else f", {chart['group']}"
    period = f"from {_moment(alarm['began'])} to {_moment(alarm['last'])}"
    state = f"; over at {_moment(alarm['ended'])}" if alarm["ended"] else ""
    return (
        f"{chart['structure']}{group}: Dice lower by {alarm['drop']:.3f} {period}: mean {alarm['mean_during']:.3f} "
        f"over {counted(alarm['n_cases'], 'case')} against {alarm['mean_before']:.3f} before (medians "
        f"{alarm['median_during']:.3f} and {alarm['median_before']:.3f}); noticed at {_moment(alarm['raised'])}{state}"
    )


def write_monitor(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Write the page, atomically."""
    shown = [
        {
            "chart": chart,
            "heading": chart["structure"] if chart["group"] == "all" else f"{chart['structure']}, {chart['group']}",
            "picture": chart_figure(chart),
            "alt": f"{chart['structure']}, {chart['group']}: {state_text(chart)}, {counted(chart['n'], 'case')}, "
            f"baseline median {figure(chart['baseline']['median'])}, "
            f"latest median {figure(chart['latest']['median'])}.",
            "alarms": [alarm_text(chart, alarm) for alarm in chart["alarms"]],
        }
        for chart in result["charts"]
    ]
    return write_review(
        path,
        "monitor.html",
        title="Dice over time",
        result=result,
        summary=summary(result),
        shown=shown,
        listed=LISTED,
        standing=[text for chart in result["charts"] if (text := alarm_text(chart))],
        state=state_text,
        sums=sum_text,
    )


def chart_figure(chart: Mapping[str, Any]) -> str | None:
    """Dice of each case with its smoothed course, and below it the cumulative sum with its limit.

    Returns:
        The SVG, base64; None without a case.
    """
    from matplotlib.figure import Figure

    if not chart["cases"]:
        return None
    picture = Figure(figsize=(9.6, 4.2), layout="constrained")
    top, bottom = picture.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    _draw_values(top, chart)
    _draw_sums(bottom, chart)
    for ax in (top, bottom):
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        for alarm in chart["alarms"]:
            last = alarm["last"]["index"] + 1
            ax.axvspan(alarm["began"]["index"] + 0.5, last + 0.5, color=OKABE_ITO[4], alpha=0.12, linewidth=0)
            ax.axvline(alarm["raised"]["index"] + 1, color=OKABE_ITO[4], linewidth=1.2, linestyle="dotted")
    _date_ticks(bottom, chart)
    return svg(picture)


def _draw_values(ax: Axes, chart: Mapping[str, Any]) -> None:
    dice = np.array([case["dice"] for case in chart["cases"]])
    failed = np.array([case["status"] == "failed" for case in chart["cases"]])
    place = np.arange(1, len(dice) + 1)
    if not chart["baseline_is_reference"]:
        ax.axvspan(0.5, chart["baseline"]["n"] + 0.5, color="#999999", alpha=0.12, linewidth=0)
    if chart["baseline"]["median"] is not None:
        ax.axhline(chart["baseline"]["median"], color="#333333", linewidth=1, linestyle=(0, (4, 3)))
    ax.scatter(place[~failed], dice[~failed], s=12, color=OKABE_ITO[0], alpha=0.6, linewidths=0)
    ax.scatter(place[failed], dice[failed], s=26, color=OKABE_ITO[4], marker="x")
    smooth = [dice[0]]
    for value in dice[1:]:
        smooth.append((1 - _SMOOTH) * smooth[-1] + _SMOOTH * value)
    ax.plot(place, smooth, color="black", linewidth=1.3)
    ax.set(ylabel="Dice", ylim=(min(0.5, float(dice.min())) - 0.03, 1.03))


def _draw_sums(ax: Axes, chart: Mapping[str, Any]) -> None:
    sums = np.array([math.nan if case["sum"] is None else case["sum"] for case in chart["cases"]], float)
    ax.plot(np.arange(1, len(sums) + 1), sums, color=OKABE_ITO[0], linewidth=1.4)
    if chart["limit"] is not None:
        ax.axhline(chart["limit"], color=OKABE_ITO[4], linewidth=1.2)
        ax.set_ylim(0, chart["limit"] * 1.35)
    else:
        ax.set_yticks([])  # all cases are the baseline's
    ax.set(ylabel="cumulative sum", xlim=(0.5, len(sums) + 0.5))


def _date_ticks(ax: Axes, chart: Mapping[str, Any]) -> None:
    """At most six cases named by their number and date."""
    last = len(chart["cases"])
    places = sorted({round(p) for p in np.linspace(1, last, min(6, last))})
    ax.set_xticks(places, [f"{p}\n{chart['cases'][p - 1]['date'][:10]}" for p in places], fontsize=8)


def _moment(moment: Mapping[str, Any]) -> str:
    return f"{moment['case']} ({moment['date']})"
