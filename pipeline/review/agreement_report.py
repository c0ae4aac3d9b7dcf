"""Annotators' agreement as tables on the screen and as one HTML file that opens offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from rarevox.pipeline.console import Console
from rarevox.pipeline.figures import figure, interval_text
from rarevox.pipeline.pictures import OKABE_ITO, svg
from rarevox.pipeline.review.page import write_review
from rarevox.pipeline.words import counted, visible

LISTED = 20
"""Flagged cases that are named on the screen; the files name all of them."""
LONGEST = 40
"""Letters of a structure's name that the picture has room for; the tables have them all."""
_WIDTH = 120


def print_agreement(result: Mapping[str, Any]) -> None:
    """The tables, on standard output."""
    out = Console()
    out = out if out.is_terminal else Console(width=_WIDTH + 10 * len(result["annotators"]))
    out.print(structures_table(result))
    out.print(annotators_table(result))
    out.print(matrix_table(result))
    if result["model_results"]:
        out.print(beside_table(result))
    star = "; *: consensus of all annotators" if result["model_results"] else ""
    out.say("[dim]{}{}[/dim]", summary(result), star)


def structures_table(result: Mapping[str, Any]) -> Table:
    """By structure: the agreement of two annotators."""
    surface = surface_column(result)
    table = _table(
        "structure", "cases", "Dice of two annotators", "lowest", *([surface_name(surface)] if surface else [])
    )
    table.add_column(f"below {result['flag_below']:g}", justify="right")
    for name, one in result["structures"].items():
        dice = one["pairs"]["dice"]
        cells = [str(dice["n"]), interval_text(dice["mean"], dice["ci95"]), figure(one["lowest"])]
        cells += [figure(one["pairs"][surface]["mean"])] if surface else []
        table.add_row(name, *cells, str(one["n_flagged"]))
    return table


def annotators_table(result: Mapping[str, Any]) -> Table:
    """By annotator, and for the model: Dice with the consensus and with the other annotators, STAPLE's estimates."""
    table = _table(
        "annotator", "cases", "Dice, consensus of the others", "Dice, each other", "sensitivity", "specificity"
    )
    for one in result["annotators"]:
        rates = [figure(staple_mean(one, key)) for key in ("sensitivity", "specificity")]
        dice = interval_text(one["mean_dice"], one["mean_dice_ci95"])
        table.add_row(one["name"], str(one["n_cases"]), dice, figure(one["with_others"]["mean"]), *rates)
    model = result["model_results"]
    if model:
        dice = interval_text(model["mean_dice"], model["mean_dice_ci95"])
        cells = [str(model["n_cases"]), f"{dice} *", figure(model["with_annotators"]["mean"]), "–", "–"]
        table.add_row(Text("model", "bold"), *cells)
    return table


def matrix_table(result: Mapping[str, Any]) -> Table:
    """Annotator × annotator, the mean over structures."""
    names = [one["name"] for one in result["annotators"]]
    table = _table("Dice", *names)
    for name, row in zip(names, result["matrix"], strict=True):
        table.add_row(name, *map(figure, row))
    return table


def beside_table(result: Mapping[str, Any]) -> Table:
    """The model beside each annotator, both against the consensus of the other annotators."""
    table = _table("consensus without", "cases", "its annotator", "model", "model − annotator")
    for one in result["model_results"]["beside"]:
        cells = [str(one["n"]), figure(one["annotator_dice"]), figure(one["model"]), difference(one)]
        table.add_row(one["annotator"], *cells)
    return table


def summary(result: Mapping[str, Any]) -> str:
    """What the figures stand on, in one line."""
    said = f"{counted(result['n_cases'], 'case')} of {len(result['annotators'])} annotators"
    if result["missing"]:
        said += f" (maps missing or not usable: {len(result['missing'])})"
    over = ", ".join(result["conventions"]["mean_over"])
    return f"{said}; {result['conventions']['empty_rule']}; means over structures: {over}"


def difference(one: Mapping[str, Any]) -> str:
    """The model's Dice less an annotator's, with its interval.

    >>> difference({"difference": 0.0123, "ci95": [-0.01, 0.034]})
    '+0.012 (-0.010 to +0.034)'
    """
    from rarevox.pipeline.evaluation.comparison.tables import difference_text

    return difference_text(one["difference"], one["ci95"])


def staple_mean(annotator: Mapping[str, Any], key: str) -> float:
    """An annotator's sensitivity or specificity, the mean over labels."""
    known = [one[key] for one in annotator["staple"].values() if one[key] is not None and math.isfinite(one[key])]
    return float(np.mean(known)) if known else math.nan


def surface_column(result: Mapping[str, Any]) -> str | None:
    """The first surface Dice among the columns."""
    columns = next(iter(result["structures"].values()))["pairs"]
    return next((column for column in columns if column.startswith("surface_dice")), None)


def surface_name(column: str) -> str:
    """``surface_dice_1mm`` in words.

    >>> surface_name("surface_dice_1mm")
    'surface Dice 1 mm'
    """
    return "surface Dice " + column.removeprefix("surface_dice_").replace("mm", " mm")


def write_agreement(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Write the page, atomically."""
    names = [one["name"] for one in result["annotators"]]
    counted = f"mean over {', '.join(result['conventions']['mean_over'])}"
    matrices = {counted: result["matrix"]} if len(result["matrices"]) > 1 else {}
    surface = surface_column(result)
    return write_review(
        path,
        "agreement.html",
        title=f"Agreement of {len(names)} annotators" + (" and a model" if result["model_results"] else ""),
        result=result,
        summary=summary(result),
        names=names,
        matrices=matrices | dict(result["matrices"]),
        shade=shade,
        difference=difference,
        staple_mean=staple_mean,
        surface=surface,
        surface_name=surface_name(surface) if surface else "",
        picture=pairs_figure(result),
        pairs=[row for row in result["cases"] if row["relation"] == "pair"],
    )


def shade(value: float | None) -> str:
    """A cell's ground by its Dice, from white (0.5 and less) to blue (1); the number stays readable on it.

    >>> shade(1.0), shade(0.2), shade(None)
    ('rgba(0,114,178,0.40)', 'rgba(0,114,178,0.00)', 'transparent')
    """
    if value is None or not math.isfinite(value):
        return "transparent"
    return f"rgba(0,114,178,{0.4 * max(0.0, 2 * value - 1):.2f})"


def pairs_figure(result: Mapping[str, Any]) -> str | None:
    """Dice of every pair of annotators in every case by structure, over the limit below which cases are flagged.

    Returns:
        The SVG, base64; None if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    values = {name: _finite_dice(result["cases"], name) for name in result["structures"]}
    values = {name: dice for name, dice in values.items() if len(dice)}
    if not values:
        return None
    picture = Figure(figsize=(9.6, 1.1 + 0.6 * len(values)), layout="constrained")
    ax, rng = picture.subplots(), np.random.default_rng(0)
    below = result["flag_below"]
    ax.axvline(below, color=OKABE_ITO[4], linewidth=1.2, linestyle=(0, (4, 3)))
    for row, dice in enumerate(values.values()):
        place = row + rng.uniform(-0.2, 0.2, len(dice))
        for here, colour, marker in ((dice >= below, OKABE_ITO[0], "o"), (dice < below, OKABE_ITO[4], "v")):
            ax.scatter(dice[here], place[here], s=18, color=colour, marker=marker, alpha=0.6, linewidths=0)
        ax.plot([np.median(dice)] * 2, [row - 0.3, row + 0.3], color="black", linewidth=2)
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in map(visible, values)]
    ax.set_yticks(range(len(values)), names, parse_math=False)  # a name is no formula
    ax.invert_yaxis()
    ax.set_xlabel("Dice of two annotators (bar: median)")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return svg(picture)


def _finite_dice(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    dice = [row["dice"] for row in rows if row["relation"] == "pair" and row["structure"] == name]
    return np.array([value for value in dice if math.isfinite(value)])


def _table(first: str, *headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
