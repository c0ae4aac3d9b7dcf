"""Commands that need no run: score, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rarevox.pipeline.commands.options import FOLDER, pairs
from rarevox.pipeline.starting import importing


@click.command(short_help="Score label maps against references.")
@click.argument("predictions", type=FOLDER)
@click.argument("references", type=FOLDER)
@click.option("--output", type=FOLDER, help="Folder for metrics.json, cases.csv and report.html.")
@click.option(
    "--structure",
    "structures",
    metavar="NAME=VALUE",
    multiple=True,
    help="A structure and its label value; NAME=1+2 is a union. Repeatable.",
)
@click.option("--dataset", type=FOLDER, help="Names, values and unions of this prepared dataset.")
@click.option(
    "--empty",
    type=click.Choice(["one", "nan", "zero"]),
    default="one",
    show_default=True,
    help="Dice where both are empty: 1, left out, or 0.",
)
@click.option(
    "--tolerance",
    "tolerances",
    metavar="MM",
    type=float,
    multiple=True,
    help="Tolerance of the surface Dice in mm. Repeatable.  [default: 1]",
)
@click.option(
    "--gates", metavar="FILE", type=FOLDER, help="YAML with the least Dice of structures: {lesion: {mean: 0.75}}."
)
@click.option(
    "--post-processing",
    metavar="FILE",
    type=FOLDER,
    help="YAML with rules by structure, applied to the predictions: {lesion: {min_ml: 0.02}}.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any other convention of the metrics: surface=area, lesion_dilation=3, … (docs/metrics.md). Repeatable.",
)
@click.option("--resample", is_flag=True, help="Bring predictions on another grid onto the reference's.")
@click.option("--ignore-unknown", is_flag=True, help="Take undeclared label values as background.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Cases at once.")
def score(
    predictions: Path,
    references: Path,
    output: Path | None,
    structures: Sequence[str],
    empty: str,
    tolerances: Sequence[float],
    settings: Sequence[str],
    **options: Any,
) -> int:
    """Score label maps in PREDICTIONS against those in REFERENCES; no model is needed."""
    from rarevox.pipeline.data.composites import parse_structures
    from rarevox.pipeline.evaluation.metrics.options import read_options

    with importing():
        from rarevox.pipeline.evaluation.score import score as run

    conventions = read_options(pairs(settings, "--set"), empty=empty, tolerances_mm=tuple(tolerances) or (1.0,))
    given = parse_structures(structures) or None
    return run(predictions, references, output, structures=given, options=conventions, **options)


@click.command(short_help="Compare evaluations case by case.")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--output", type=FOLDER, help="Folder for compare.json, compare.html and the tables (text, CSV, LaTeX).")
@click.option("--metric", default="dice", show_default=True, help="A column of cases.csv.")
@click.option("--name", "names", multiple=True, help="What each evaluation is called, in their order. Repeatable.")
def compare(folders: Sequence[Path], output: Path | None, metric: str, names: Sequence[str]) -> int:
    """Compare evaluations (FOLDERS of `evaluate` or `score`) case by case: intervals, tests, a leaderboard."""
    from rarevox.pipeline.evaluation.compare import compare as run

    return run(folders, output, metric=metric, names=names)
