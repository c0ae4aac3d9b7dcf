"""Commands about reviewed cases: agreement, monitor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rarevox.pipeline.commands.options import FOLDER
from rarevox.pipeline.errors import RequestError


@click.command(short_help="Compare annotators, and a model with them.")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--model", type=FOLDER, metavar="PREDICTIONS", help="The model's label maps of the same cases.")
@click.option("--output", type=FOLDER, help="Folder for agreement.json, .csv, .html and the consensus maps.")
@click.option(
    "--structure",
    "structures",
    metavar="NAME=VALUE",
    multiple=True,
    help="A structure and its label value; NAME=1+2 is a union. Repeatable.",
)
@click.option(
    "--flag-below", type=click.FloatRange(0, 1), default=0.75, show_default=True, help="Dice to list cases by."
)
@click.option(
    "--tolerance", "tolerances", metavar="MM", type=float, multiple=True, help="Of the surface Dice.  [default: 1]"
)
@click.option("--empty", type=click.Choice(["one", "nan"]), default="one", show_default=True, help="Both maps empty.")
@click.option("--resample", is_flag=True, help="Bring maps on another grid onto that of most annotators.")
@click.option("--ignore-unknown", is_flag=True, help="Take undeclared label values as background.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Cases at once.")
def agreement(
    folders: Sequence[Path],
    output: Path | None,
    structures: Sequence[str],
    tolerances: Sequence[float],
    empty: str,
    **options: Any,
) -> int:
    """Compare annotators (FOLDERS, one each, or one that holds theirs) and a model: Dice, STAPLE consensus."""
    from rarevox.pipeline.data.composites import parse_structures
    from rarevox.pipeline.evaluation.metrics.options import MetricOptions
    from rarevox.pipeline.review.agreement import agreement as run

    try:
        conventions = MetricOptions(empty=empty, tolerances_mm=tuple(tolerances) or (1.0,), lesions=False)
    except ValueError as error:
        raise RequestError(str(error)) from error
    return run(folders, output, structures=parse_structures(structures) or None, options=conventions, **options)


@click.command(short_help="Look for a sustained drop of Dice.")
@click.argument("history", type=FOLDER, metavar="DB")
@click.option("--add", type=FOLDER, multiple=True, help="Folder of `evaluate` or `score` to add. Repeatable.")
@click.option("--site", default="", help="Where the added cases come from.")
@click.option("--scanner", default="", help="What the added cases were made with.")
@click.option("--date", "day", metavar="ISO", help="When they were reviewed.  [default: today, UTC]")
@click.option("--by", type=click.Choice(["site", "scanner"]), help="A chart for each of them too.")
@click.option("--baseline", type=FOLDER, help="Evaluation to compare with, instead of the first cases.")
@click.option(
    "--baseline-cases", metavar="N", type=int, default=30, show_default=True, help="First cases, to learn from."
)
@click.option(
    "--false-alarm-every",
    metavar="N",
    type=float,
    default=1000,
    show_default=True,
    help="Cases from one false alarm to the next, on average.",
)
@click.option("--since", metavar="ISO", help="Leave out cases before this date.")
@click.option("--output", type=FOLDER, help="Folder for monitor.json and monitor.html.")
def monitor(history: Path, baseline_cases: int, false_alarm_every: float, **options: Any) -> int:
    """Keep the Dice of reviewed cases in DB (SQLite) and look for a sustained drop; status 1 on an alarm."""
    from rarevox.pipeline.review.monitor import monitor as run
    from rarevox.pipeline.review.monitor_chart import ChartOptions

    try:
        design = ChartOptions(baseline=baseline_cases, run_length=false_alarm_every)
    except ValueError as error:
        raise RequestError(str(error)) from error
    return run(history, options.pop("output"), options=design, **options)
