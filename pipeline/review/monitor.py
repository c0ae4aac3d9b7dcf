"""Dice over time: a history of reviewed cases, and an alarm when it drops for good: ``rarevox monitor DB``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.files import claim_folder, write_json
from rarevox.pipeline.review.monitor_chart import LEAST_BASELINE, Alarm, ChartOptions, control_chart
from rarevox.pipeline.review.monitor_read import iso_date, read_reviewed, results_below
from rarevox.pipeline.review.monitor_report import alarm_text, print_monitor, write_monitor
from rarevox.pipeline.review.monitor_store import Figure, add_cases, content_digest, read_history
from rarevox.pipeline.words import counted, listed

ALL = "all"
GROUPS = ("site", "scanner")
NOT_STATED = "not stated"


def monitor(
    history: str | Path,
    output: str | Path | None = None,
    *,
    add: Sequence[str | Path] = (),
    site: str = "",
    scanner: str = "",
    day: str | None = None,
    by: str | None = None,
    baseline: str | Path | None = None,
    since: str | None = None,
    options: ChartOptions | None = None,
) -> int:
    """Add reviewed cases to a history, if any are given, and look for a sustained drop of Dice in it.

    Args:
        history: the SQLite file; made where there is none and cases are added.
        output: a folder for ``monitor.json`` and ``monitor.html``; None writes nothing.
        add: folders of ``rarevox evaluate`` or ``rarevox score``.
        site, scanner, day: hold for all cases that are added; ``day`` is ISO, today without it.
        by: ``site`` or ``scanner``: a chart for each of them as well.
        baseline: a reference evaluation to compare with; None takes the first cases of each chart.
        since: leave out cases before this ISO date, for example when the model was replaced.
        options: the design; ``run_length`` holds for all charts together.

    Returns:
        0; 1 if an alarm stands, cases were given again with another date, site or scanner, or a folder could not be
        added, wholly or what lies in it; those are told, the others are added.

    Raises:
        RequestError: the file is no usable history, none of the folders can be added, a date is not ISO, or a site,
            scanner or date of nothing that is added.
    """
    options = options or ChartOptions()
    if not add and (site or scanner or day):
        raise RequestError(
            "--site, --scanner and --date hold for the cases that are added; give their folder with --add"
        )
    given = {"day": iso_date(day, "--date") if day else None, "site": site, "scanner": scanner}
    start = iso_date(since, "--since") if since else ""
    if output is not None:
        claim_folder(output, lambda folder: (folder / "monitor.json").is_file(), "a monitor's result")
    doubtful = _add_all(history, add, given)
    result = charts(history, by=by, baseline=baseline, since=start, options=options)
    print_monitor(result)
    standing = [text for chart in result["charts"] if (text := alarm_text(chart))]
    for text in standing:
        console.say("[red]alarm[/red] {}", text)
    if output is not None:
        write_json(Path(output) / "monitor.json", result)
        write_monitor(Path(output) / "monitor.html", result)
        console.print(f"monitor.json, monitor.html are in {output}")
    return int(bool(standing) or doubtful)


def charts(
    history: str | Path,
    *,
    by: str | None = None,
    baseline: str | Path | None = None,
    since: str = "",
    options: ChartOptions | None = None,
) -> dict[str, Any]:
    """The content of ``monitor.json``: a chart for each structure, and with ``by`` for each structure and group.

    Every case enters ``structures × (2 with by, else 1)`` charts. So that the rate of false alarms asked for holds for
    all of them together, each is designed for that many times the run length.
    """
    options = options or ChartOptions()
    figures, rule = read_history(history, since)
    if not figures:
        raise RequestError(f"{history} holds no case{f' since {since}' if since else ''}; add some with --add FOLDER")
    structures = list(dict.fromkeys(figure.structure for figure in figures))
    reference = _reference(baseline, rule, structures) if baseline is not None else None
    inside = set(reference["digests"]) if reference else set()
    watched = [figure for figure in figures if figure.digest not in inside]
    n_charts = len(structures) * (2 if by else 1)
    design = replace(options, run_length=options.run_length * n_charts)
    names = [ALL]
    names += sorted({_group(figure, by) for figure in watched}) if by else []
    found = []
    for structure in structures:
        for name in names:
            rows = [
                f for f in watched if f.structure == structure and name in (ALL, getattr(f, by or "site") or NOT_STATED)
            ]
            given = reference["dice"].get(structure, []) if reference else None
            if rows:
                found.append(_chart(structure, name, rows, design, given))
    dates = [figure.date for figure in figures]
    return {
        "history": str(history),
        "n_cases": len({figure.digest for figure in figures}),
        "n_failed": len({figure.digest for figure in figures if figure.status == "failed"}),
        "first_date": min(dates),
        "last_date": max(dates),
        "by": by,
        "structures": structures,
        "charts": found,
        "conventions": _conventions(options, rule, n_charts, baseline, since),
        "versions": versions(),
    }


def _group(figure: Figure, by: str | None) -> str:
    return (getattr(figure, by) or NOT_STATED) if by else ALL


def _add_all(history: str | Path, folders: Sequence[str | Path], given: Mapping[str, Any]) -> bool:
    """Add the folders, each for itself, and say what came of it; returns whether something wants a look.

    Raises:
        RequestError: none of them can be added.
    """
    doubtful, refused = False, []
    for folder in folders:
        try:
            doubtful |= _add(history, folder, *read_reviewed(folder, **given))
        except RequestError as error:
            refused.append(error)
            if len(refused) < len(folders):
                console.say("[red]not added[/red] {}", error)
        for inner in results_below(folder):
            doubtful = True
            console.say("[yellow]passed over[/yellow] {}: it holds a result of its own; give it with --add", inner)
    if refused and len(refused) == len(folders):
        raise refused[-1]
    return doubtful or bool(refused)


def _add(history: str | Path, folder: str | Path, cases: list[Any], rule: str) -> bool:
    """Add one folder and say what came of it; returns whether something wants a look."""
    added = add_cases(history, cases, rule, str(folder))
    console.print(f"{folder}: {counted(len(added.new), 'case')} added, {added.known} were there already")
    if added.elsewhere:
        console.say(
            "[yellow]left as they were[/yellow], under another date, site or scanner: {}", listed(added.elsewhere)
        )
    if added.again:
        console.say("[yellow]reviewed again[/yellow] with other figures, both count: {}", listed(added.again))
    return bool(added.elsewhere)


def _reference(folder: str | Path, rule: str, structures: Sequence[str]) -> dict[str, Any]:
    """The reference evaluation: Dice by structure, and what tells its cases from those of the history."""
    cases, other = read_reviewed(folder)
    if other != rule:
        raise RequestError(
            f"--baseline {folder} gives Dice by the empty rule {other!r} and the history by {rule!r}; score it anew"
        )
    dice: dict[str, list[float]] = {}
    for case in cases:
        for structure, value, _ in case.figures:
            if value is not None:
                dice.setdefault(structure, []).append(value)
    if not set(dice) & set(structures):
        raise RequestError(
            f"--baseline {folder} has the structures {', '.join(dice)} and the history has {', '.join(structures)}; "
            "give an evaluation of the same structures"
        )
    return {"dice": dice, "digests": [content_digest(case) for case in cases]}


def _chart(
    structure: str, group: str, rows: Sequence[Figure], design: ChartOptions, reference: Sequence[float] | None
) -> dict[str, Any]:
    """One chart as it goes into the files."""
    known = [row for row in rows if row.dice is not None]
    dice = [float(row.dice) for row in known if row.dice is not None]
    first = list(reference) if reference is not None else dice[: design.baseline]
    wanted = LEAST_BASELINE if reference is not None else design.baseline
    chart = control_chart(dice, design, reference or ()) if len(first) >= wanted else None
    sums = chart.sums if chart else [None] * len(dice)
    alarms = [_alarm(alarm, known) for alarm in chart.alarms] if chart else []
    standing = bool(alarms) and alarms[-1]["ended"] is None
    return {
        "structure": structure,
        "group": group,
        "state": "too few cases" if chart is None else "alarm" if standing else "in control",
        "n": len(dice),
        "n_failed": sum(row.status == "failed" for row in rows),
        "n_undefined": len(rows) - len(dice),
        "baseline": {**_described(first), "wanted": wanted},
        "latest": _described(dice[-20:]),
        "limit": chart.limit if chart else None,
        "alarms": alarms,
        "baseline_is_reference": reference is not None,
        "cases": [
            {
                "case": r.case,
                "date": r.date,
                "site": r.site,
                "scanner": r.scanner,
                "dice": d,
                "status": r.status,
                "sum": s,
            }
            for r, d, s in zip(known, dice, sums, strict=True)
        ],
    }


def _alarm(alarm: Alarm, rows: Sequence[Figure]) -> dict[str, Any]:
    def moment(index: int | None) -> dict[str, Any] | None:
        return None if index is None else {"case": rows[index].case, "date": rows[index].date, "index": index}

    return {
        "began": moment(alarm.began),
        "raised": moment(alarm.raised),
        "last": moment(alarm.last),
        "ended": moment(alarm.ended),
        "n_cases": alarm.last + 1 - alarm.began,
        "mean_before": alarm.before,
        "mean_during": alarm.during,
        "drop": alarm.before - alarm.during,
        "median_before": alarm.before_median,
        "median_during": alarm.during_median,
    }


def _described(values: Sequence[float]) -> Mapping[str, Any]:
    if not values:
        return {"n": 0, "mean": None, "median": None, "iqr": [None, None]}
    low, median, high = (float(q) for q in np.percentile(values, [25, 50, 75]))
    return {"n": len(values), "mean": float(np.mean(values)), "median": median, "iqr": [low, high]}


def _conventions(
    options: ChartOptions, rule: str, n_charts: int, baseline: str | Path | None, since: str
) -> dict[str, Any]:
    return {
        "chart": "cumulative sum of the standardised normal scores of sequential ranks, against a drop alone",
        "baseline": f"the evaluation {baseline}" if baseline else f"the first {options.baseline} cases of each chart",
        "allowance": options.allowance,
        "false_alarms": f"one in {options.run_length:g} cases on average while nothing changes, all charts together",
        "charts_a_case": n_charts,
        "began": "the likeliest change since the sum was last 0",
        "drop": "mean of the cases before it began - mean of the cases from then to the end of the drop",
        "order": "by date, then in the order of adding",
        "failed_cases": "count with Dice 0",
        "undefined": "left out and counted (n_undefined)",
        "empty": rule,
        "since": since or "the beginning",
    }
