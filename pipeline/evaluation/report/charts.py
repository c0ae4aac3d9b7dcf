"""Charts as positions in per cent: the page draws them as SVG that fits any width, with text at its own size.

Nothing here knows of HTML: ``charts.html`` turns what these functions return into marks. A chart in per cent needs no
script, stays sharp at any zoom and keeps its letters legible on a phone, which a picture does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.pictures import OKABE_ITO

MAX_MARKS = 400
"""Marks in one strip; of more cases those at both ends are all drawn, and every so many of the others."""
_DOT_PX = 3.2
_CENTRE_PX = 22.0
_SPREAD_PX = 18.0


def axis(values: Iterable[float], *, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """A linear axis over the values: ``low``, ``high``, and ``ticks`` with their text and place in per cent; ``zero``.

    Args:
        values: what must be seen; those that are not finite do not count.
        low: a bound that the axis starts at whatever the values are; None lets them decide.
        high: likewise its end.

    >>> [tick["text"] for tick in axis([0.62, 0.97], high=1.0)["ticks"]]
    ['0.6', '0.7', '0.8', '0.9', '1.0']
    """
    from matplotlib.ticker import MaxNLocator

    finite = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
    start, end = (min(finite) if low is None else low), (max(finite) if high is None else high)
    if not end > start:
        start, end = (end - 0.5 if low is None else start), (start + 0.5 if high is None else end)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(start, end)
    start, end = (ticks[0] if low is None else start), (ticks[-1] if high is None else end)
    inside = [tick for tick in ticks if start - 1e-9 <= tick <= end + 1e-9]
    digits = max(0, *(len(f"{tick:.6f}".rstrip("0").partition(".")[2]) for tick in inside)) if inside else 0
    scale = {"low": float(start), "high": float(end)}
    zero = percent(0.0, scale)
    return scale | {"zero": zero, "ticks": [{"text": f"{t:.{digits}f}", "at": percent(t, scale)} for t in inside]}


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis over positive values, with ticks at 1, 2 and 5 times the powers of ten (or at the powers).

    >>> [tick["text"] for tick in log_axis([0.3, 4])["ticks"]]
    ['0.5', '1', '2']
    """
    finite = [float(v) for v in values if math.isfinite(v) and v > 0] or [1.0]
    low, high = min(finite) / 1.15, max(finite) * 1.15
    span = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: Sequence[Sequence[float]] = [(1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)]
    for multiples in steps if len(span) >= 4 else steps[1:]:
        ticks = [m * 10.0**p for p in span for m in multiples if low <= m * 10.0**p <= high]
        if len(ticks) > 1:  # of one alone no scale can be read
            break
    scale = {"low": low, "high": high, "log": True}
    return scale | {"ticks": [{"text": f"{t:g}", "at": percent(t, scale)} for t in ticks]}


def percent(value: float, scale: Mapping[str, Any]) -> float:
    """Where a value lies on an axis, from 0 at its start to 100 at its end; beyond them it stays at the end.

    >>> percent(0.75, {"low": 0.5, "high": 1.0})
    50.0
    """
    value, low, high = (math.log10(v) if scale.get("log") else v for v in (value, scale["low"], scale["high"]))
    return round(float(min(max(100.0 * (value - low) / (high - low), 0.0), 100.0)), 2)


def distribution(
    result: Mapping[str, Any], column: str, label: str, *, gates: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """A strip for each structure: every case a mark, the box of the quartiles with the median, the mean's interval.

    Args:
        result: of :func:`rarevox.pipeline.evaluation.metrics.aggregate.aggregate` (or read back from ``metrics.json``).
        column: of the rows; ratios (0 to 1) end at 1, lengths begin at 0.
        label: what the axis is called.
        gates: minima of this column to be marked, entries of ``result["gates"]``.

    Returns:
        ``label``, ``axis``, ``strips``; None if no row has a figure.
    """
    tables = {name: _known(result["cases"], name, column) for name in result["structures"]}
    everything = [float(row[column]) for rows in tables.values() for row in rows]
    if not everything:
        return None
    ratio = not column.endswith(("_mm", "_ml"))
    bounds = {"high": 1.0} if ratio else {"low": 0.0} if min(everything) >= 0 else {}
    minima = [gate["minimum"] for gate in gates]
    scale = axis(everything + minima, **bounds)
    strips = []
    for number, (name, rows) in enumerate(tables.items()):
        if not rows:
            continue
        marks = [{"case": r["case"], "value": float(r[column]), "failed": r["status"] == "failed"} for r in rows]
        one = strip(name, marks, result["structures"][name][column], scale, OKABE_ITO[number % len(OKABE_ITO)])
        one["gates"] = [{**g, "at": percent(g["minimum"], scale)} for g in gates if g["structure"] == name]
        strips.append(one)
    return {"label": label, "column": column, "axis": scale, "strips": strips, "ratio": ratio}


def strip(
    name: str, marks: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], scale: Mapping[str, Any], colour: str
) -> dict[str, Any]:
    """One row of a strip chart.

    Args:
        name: what stands at its side.
        marks: ``case`` and ``value`` of each mark, and anything that the page draws it by.
        summary: ``mean`` and ``ci95`` of the values.
        scale: the axis.
        colour: of the marks.
    """
    values = np.array([mark["value"] for mark in marks])
    q25, median, q75 = np.percentile(values, [25, 50, 75])
    kept = _thinned(values)
    heights = swarm([percent(values[i], scale) for i in kept])
    drawn = [{**marks[i], "at": percent(values[i], scale), "y": y} for i, y in zip(kept, heights, strict=True)]
    low, high = summary["ci95"]
    known = low is not None and math.isfinite(low)
    return {
        "name": name,
        "colour": colour,
        "marks": drawn,
        "left_out": len(marks) - len(drawn),
        "box": [percent(float(q), scale) for q in (q25, median, q75)],
        "mean": percent(summary["mean"], scale),
        "interval": [percent(low, scale), percent(high, scale)] if known else None,
        "said": f"median {median:.3g}, quartiles {q25:.3g} to {q75:.3g}, mean {summary['mean']:.3g}, n {len(values)}",
    }


def swarm(places: Sequence[float]) -> list[float]:
    """Heights in pixels that keep marks at nearly the same place apart: the first on the middle, then up and down.

    >>> swarm([50.0, 50.1, 80.0])
    [22.0, 15.6, 22.0]
    """
    bins = [int(place) for place in places]
    most = max((bins.count(b) for b in set(bins)), default=1)
    step = min(2 * _DOT_PX, 2 * _SPREAD_PX / max(1, most))
    seen: dict[int, int] = {}
    heights = []
    for b in bins:
        k = seen[b] = seen.get(b, -1) + 1
        heights.append(round(_CENTRE_PX + ((k + 1) // 2) * step * (-1 if k % 2 else 1), 1))
    return heights


def size_charts(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each structure with size strata: Dice over reference volume, with the mean of each third."""
    charts = []
    for number, (name, summary) in enumerate(result["structures"].items()):
        strata = summary.get("by_size")
        if not strata:
            continue
        rows = [r for r in _known(result["cases"], name, "dice") if (r["reference_ml"] or 0) > 0]
        x, y = log_axis(r["reference_ml"] for r in rows), axis((r["dice"] for r in rows), high=1.0)
        steps = [
            {
                "x": [percent(part["min_ml"], x), percent(part["max_ml"], x)],
                "y": 100 - percent(part["dice_mean"], y),
                "said": f"{size}: mean Dice {part['dice_mean']:.3f}, n {part['n']}",
            }
            for size, part in strata.items()
        ]
        dots = [
            {
                "x": percent(r["reference_ml"], x),
                "y": round(100 - percent(r["dice"], y), 2),
                "case": r["case"],
                "said": f"{r['case']}: {r['reference_ml']:.3g} ml, Dice {r['dice']:.3f}",
                "failed": r["status"] == "failed",
            }
            for r in (rows[i] for i in _thinned(np.array([r["dice"] for r in rows])))
        ]
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        charts.append({"name": name, "colour": colour, "x": x, "y": y, "dots": dots, "steps": steps})
    return charts


def curve_charts(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Loss over iterations, and the validation Dice of each structure; empty without any record.

    Args:
        curves: ``train``: records with ``iteration`` and ``loss``; ``validation``: records with ``iteration``, ``dice``
            (structure → figure) and ``mean_dice``.
    """
    train, validation = curves.get("train") or [], curves.get("validation") or []
    charts = []
    if train:
        loss = np.array([record["loss"] for record in train], float)
        steps = [record["iteration"] for record in train]
        lines = {"each": (loss, OKABE_ITO[0], "faint"), "running mean": (_smooth(loss), OKABE_ITO[0], "")}
        charts.append(_line_chart("Training loss", steps, lines))
    if validation:
        steps, lines = [record["iteration"] for record in validation], {}
        for number, name in enumerate(validation[-1].get("dice") or {}):
            dice = [_or_nan((record.get("dice") or {}).get(name)) for record in validation]
            lines[name] = (np.array(dice), OKABE_ITO[number % 7], "")
        lines["mean"] = (np.array([_or_nan(record.get("mean_dice")) for record in validation]), "#000000", "dashed")
        charts.append(_line_chart("Validation Dice", steps, lines, high=1.0))
    return charts


def _line_chart(label: str, steps: Sequence[float], lines: Mapping[str, Any], **bounds: float) -> dict[str, Any]:
    """Lines over a common x, each as runs of points without a gap, in a square of 1000 (y downwards).

    A run of one point is no line to see; its place is in ``dots``.
    """
    x = axis([0, *steps], low=0, high=max(steps))
    y = axis((v for values, _, _ in lines.values() for v in values), **bounds)
    drawn = []
    for name, (values, colour, style) in lines.items():
        runs: list[list[tuple[float, float]]] = [[]]
        for step, value in zip(steps, values, strict=True):
            if math.isfinite(value):
                runs[-1].append((percent(step, x), round(100 - percent(float(value), y), 2)))
            elif runs[-1]:
                runs.append([])
        known = [float(v) for v in values if math.isfinite(v)]
        last = f"{known[-1]:.3g}" if known else "–"
        points = [" ".join(f"{10 * a:.1f},{10 * b:.1f}" for a, b in run) for run in runs if run]
        dots = [{"x": run[0][0], "y": run[0][1]} for run in runs if len(run) == 1]
        drawn.append({"name": name, "colour": colour, "style": style, "runs": points, "dots": dots, "last": last})
    return {"label": label, "x": x, "y": y, "lines": drawn}


def _thinned(values: np.ndarray) -> list[int]:
    """At most ``MAX_MARKS`` positions in the order of the values: a quarter at each end, and evenly between."""
    order = np.argsort(values, kind="stable")
    if len(order) > MAX_MARKS:
        end = MAX_MARKS // 4
        between = np.linspace(end, len(order) - end - 1, MAX_MARKS - 2 * end).astype(int)
        order = np.concatenate([order[:end], order[np.unique(between)], order[-end:]])
    return [int(i) for i in order]


def _smooth(values: np.ndarray) -> np.ndarray:
    """The running mean over a twentieth of the records before each."""
    span = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - span, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _known(rows: Sequence[Mapping[str, Any]], name: str, column: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["structure"] == name and math.isfinite(_or_nan(row.get(column)))]


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)
