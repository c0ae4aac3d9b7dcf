"""The figures of a result as a table in the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rarevox.pipeline.console import Console, console
from rarevox.pipeline.figures import figure, interval_text
from rarevox.pipeline.gates import failed_gates
from rarevox.pipeline.words import counted

_UNBOUNDED = 10_000
COLUMNS = {"dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 mm", "assd_mm": "ASSD mm", "lesion_f1": "lesion F1"}


def print_results(result: Mapping[str, Any]) -> None:
    """Print the table of a result of `rarevox.pipeline.evaluation.metrics.aggregate` to standard output.

    Failed cases, predictions without a reference and gates that are not passed go to standard error, one line each.
    """
    out, table = Console(), results_table(result)
    needed = Console(width=_UNBOUNDED).measure(table).maximum
    if not out.is_terminal:
        out = Console(width=max(out.width, needed))  # a file or a pipe has room for every column
    out.print(table if needed <= out.width else results_table(result, narrow=True))
    cases = counted(result["n_cases"], "case")
    out.print(f"mean Dice {interval_text(result['mean_dice'], result['mean_dice_ci95'])} over {cases}")
    for sentence in empty_references(result):
        out.print(sentence, soft_wrap=True)
    if "without_post_processing" in result:
        before = result["without_post_processing"]
        out.print(
            f"raw, without post-processing: mean Dice {interval_text(before['mean_dice'], before['mean_dice_ci95'])}"
        )
    out.say("[dim]{}; intervals are 95 %[/dim]", result["conventions"]["empty_rule"])
    for one in result.get("warnings", []):
        console.say("[yellow]{}: {}[/]", one["case"], one["warning"])
    for cases, reason in failures_by_reason(result["failed"]):
        console.say("[red]failed[/red] {}: {}", cases, reason)
    for name in result.get("unmatched_predictions", []):
        console.say("[yellow]not scored[/yellow] {}: there is no reference for it", name)
    for sentence in result.get("left", []):
        console.say("[yellow]passed over[/yellow] {}", sentence)
    if result.get("gates"):
        passed = sum(row["passed"] for row in result["gates"])
        out.print(f"{passed} of {counted(len(result['gates']), 'gate')} passed")
    for sentence in failed_gates(result):
        console.say("[red]gate not passed[/red] {}", sentence)


def failures_by_reason(failed: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """The cases of each reason in words, and the reason; of many cases the first three and how many more there are.

    Reasons that differ in nothing but the case's name are one, told by that of the first.

    >>> failures_by_reason([{"case": name, "reason": "gone"} for name in "abcde"] + [{"case": "f", "reason": "torn"}])
    [('a, b, c and 2 more', 'gone'), ('f', 'torn')]
    >>> failures_by_reason([{"case": name, "reason": f"{name}.nii is torn"} for name in ("p1", "p2")])
    [('p1, p2', 'such as p1.nii is torn')]
    """
    of: dict[str, list[Mapping[str, str]]] = {}
    for failure in failed:
        kind = re.sub(rf"(?<![^\W_]){re.escape(failure['case'])}(?![^\W_])", "\0", failure["reason"])
        of.setdefault(kind, []).append(failure)
    return [(_few([one["case"] for one in some]), _told(some)) for some in of.values()]


def _told(alike: Sequence[Mapping[str, str]]) -> str:
    reason = alike[0]["reason"]
    return reason if all(one["reason"] == reason for one in alike) else f"such as {reason}"


def _few(cases: Sequence[str], first: int = 3) -> str:
    more = len(cases) - first
    return ", ".join(cases[:first]) + (f" and {more} more" if more > 0 else "")


def results_table(result: Mapping[str, Any], *, narrow: bool = False) -> Table:
    """A row for each structure: the means of the main columns that were measured, Dice with its interval.

    ``narrow`` leaves out what a terminal of 80 columns has no room for.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    measured = {column for summary in result["structures"].values() for column in summary}
    surface = [column for column in sorted(measured) if column.startswith("surface_dice")][:1]
    wanted = {c: COLUMNS[c] for c in ("dice", "hd95_mm")} if narrow else COLUMNS
    surface = [] if narrow else surface
    shown = {c: heading for c, heading in wanted.items() if c in measured} | {c: _surface(c) for c in surface}
    table.add_column("structure", no_wrap=True)
    raw = result.get("without_post_processing", {}).get("structures", {})
    before = ["Dice raw"] if raw else []
    for heading in ("n", "Dice", *before, "95 % CI", "median", *list(shown.values())[1:], "empty", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in result["structures"].items():
        dice = summary["dice"]
        low, high = dice["ci95"]
        cells = [str(summary["n_cases"]), figure(dice["mean"])]
        cells += [figure(raw[name]["dice"]["mean"])] if raw else []
        cells += ["–" if figure(low) == figure(None) else f"{figure(low)}–{figure(high)}", figure(dice["median"])]
        cells += [figure(summary[column]["mean"]) for column in list(shown)[1:]]
        table.add_row(name, *cells, str(summary["n_empty"]), str(summary["n_failed"]))
    return table


def empty_references(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each structure with cases whose reference is empty and whose prediction is not, by volume.

    >>> empty = {"empty_reference_false_positive_ml": {"n": 4, "mean": 0.25}}
    >>> empty_references({"structures": {"lesion": empty}})
    ['lesion: the reference is empty in 4 cases, with 0.250 ml of false positives on average']
    >>> empty |= {"empty_reference_false_lesions": {"n": 4, "mean": 1.5}}
    >>> empty_references({"structures": {"lesion": empty}})
    ['lesion: the reference is empty in 4 cases, with 0.250 ml of false positives on average (1.5 false lesions)']
    """
    said = []
    for name, summary in result["structures"].items():
        volume = summary.get("empty_reference_false_positive_ml") or {"n": 0, "mean": None}
        if volume["mean"] is not None and volume["mean"] > 0:  # nor NaN, where none is empty
            cases = counted(volume["n"], "case")
            mean = figure(volume["mean"])
            lesions = (summary.get("empty_reference_false_lesions") or {}).get("mean")
            # NaN where a row has none, as those of earlier versions.
            also = f" ({lesions:.3g} false lesions)" if lesions is not None and lesions == lesions else ""
            said.append(
                f"{name}: the reference is empty in {cases}, with {mean} ml of false positives on average{also}"
            )
    return said


def _surface(column: str) -> str:
    """``surface_dice_1mm`` as a short heading."""
    return "NSD " + column.removeprefix("surface_dice_").replace("mm", " mm")
