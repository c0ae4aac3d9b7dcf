"""Evaluations against one another, paired by case: ``rarevox compare A B …``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import Console, console
from rarevox.pipeline.evaluation.comparison.load import Evaluation, Paired, load, pair
from rarevox.pipeline.evaluation.comparison.stats import better, compare_values
from rarevox.pipeline.evaluation.comparison.tables import (
    TEXT_WIDTH,
    differences_csv,
    leaderboard_csv,
    leaderboard_latex,
    print_comparison,
    text,
)
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.figures import moment
from rarevox.pipeline.files import claim_folder, entries_of, write_json, write_text

FILES = ("compare.json", "compare.html", "leaderboard.txt", "leaderboard.csv", "leaderboard.tex", "differences.csv")
LISTED = 20
"""Cases left out that are named on the screen; the files name all of them."""


def compare(
    folders: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    metric: str = "dice",
    names: Sequence[str] = (),
) -> int:
    """Compare evaluations by the cases that all of them have, print the tables and, with ``output``, write them.

    Args:
        folders: two evaluation folders or more, of ``rarevox evaluate`` or ``rarevox score``.
        output: gets ``compare.json``, ``compare.html``, ``leaderboard.txt``, ``.csv`` and ``.tex``, and
            ``differences.csv``; None writes nothing.
        metric: a column of ``cases.csv``.
        names: what the evaluations are called, in their order; without any, the part of the paths that differs.

    Returns:
        0, or 1 if some cases are not in all folders; they are listed and the rest is compared.

    Raises:
        RequestError: the folders are not results, or cannot be compared
            (:mod:`rarevox.pipeline.evaluation.comparison.load` says why).
    """
    evaluations = load(folders, metric, names)
    paired = pair(evaluations, metric)
    if output is not None:
        claim_folder(output, lambda folder: entries_of(folder) <= set(FILES), "a comparison")
        if (earlier := Path(output) / FILES[0]).is_file():
            when = moment(earlier.stat().st_mtime)
            console.say("{} holds a comparison of {}, which is replaced", output, when)
    result = comparison(evaluations, paired, metric)
    out = Console()
    print_comparison(result, out if out.is_terminal else Console(width=TEXT_WIDTH + 30 * len(result["structures"])))
    for left in result["left_out"][:LISTED]:
        console.say("[yellow]left out[/yellow] {}: missing from {}", left["case"], ", ".join(left["missing_from"]))
    if len(result["left_out"]) > LISTED:
        console.say("[yellow]left out[/yellow] {} more (--output lists them)", len(result["left_out"]) - LISTED)
    if output is not None:
        _write(Path(output), result)
        console.print(f"{', '.join(FILES)} are in {output}")
    return 1 if result["left_out"] else 0


def comparison(
    evaluations: Sequence[Evaluation], paired: Paired, metric: str = "dice", options: MetricOptions | None = None
) -> dict[str, Any]:
    """The content of ``compare.json``; see ``docs/metrics.md``."""
    options = options or MetricOptions()
    found = compare_values(paired, metric, options)
    where = {evaluation.name: str(evaluation.folder) for evaluation in evaluations}
    return {
        "metric": metric,
        "better": better(metric),
        "structures": list(paired.structures),
        "n_cases": len(paired.cases),
        "evaluations": [{"folder": where[board["name"]], **board} for board in found["evaluations"]],
        "pairs": found["pairs"],
        "overall": found["overall"],
        "left_out": list(paired.left_out),
        "undefined": list(paired.undefined),
        "cases": [
            {
                "case": case,
                "structure": structure,
                "values": {name: float(paired.values[m, c, s]) for m, name in enumerate(paired.names)},
            }
            for c, case in enumerate(paired.cases)
            for s, structure in enumerate(paired.structures)
        ],
        "conventions": {
            "cases": "those that every evaluation has; a figure counts where every evaluation has it",
            "difference": "second - first",
            "intervals": f"95 %, percentile bootstrap over whole subjects, {options.resamples} resamples, the same for "
            f"all evaluations, seed {options.seed}",
            "p": "Wilcoxon signed-rank test of the subjects' mean differences, two-sided, differences of 0 dropped",
            "p_holm": "Holm's correction over all pairs and structures",
            "empty_rule": evaluations[0].conventions.get("empty_rule", "not stated"),
        },
        "versions": versions(),
    }


def _write(folder: Path, result: dict[str, Any]) -> None:
    from rarevox.pipeline.evaluation.comparison.report import write_comparison

    write_json(folder / FILES[0], result)
    write_text(folder / "leaderboard.txt", text(result))
    write_text(folder / "leaderboard.csv", leaderboard_csv(result))
    write_text(folder / "leaderboard.tex", leaderboard_latex(result))
    write_text(folder / "differences.csv", differences_csv(result))
    write_comparison(folder / "compare.html", result)
