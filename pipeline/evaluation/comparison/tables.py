"""A comparison as tables: for the terminal and a text file, as CSV, as LaTeX."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rarevox.pipeline.console import Console
from rarevox.pipeline.figures import figure, interval_text
from rarevox.pipeline.files import finite
from rarevox.pipeline.words import counted, csv_text, latex, one_line

TEXT_WIDTH = 140
LEVEL = 0.05
"""The level at which a corrected p-value is marked."""


def leaderboard_table(result: Mapping[str, Any]) -> Table:
    """A row for each evaluation, the best first: the mean over structures and each structure, with intervals."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("#", justify="right")
    table.add_column("evaluation", overflow="fold")
    for heading in (f"{result['metric']}, all", *result["structures"]):
        table.add_column(heading, justify="right")
    for board in result["evaluations"]:
        cells = [interval_text(board["mean"], board["ci95"])]
        cells += [interval_text(one["mean"], one["ci95"]) for one in board["structures"].values()]
        table.add_row(rank_text(board["rank"]), board["name"], *cells)
    return table


def differences_table(result: Mapping[str, Any]) -> Table:
    """A row for each pair and structure: the mean difference with its interval, who wins how often, the p-values."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("second − first", overflow="fold")
    table.add_column("structure", overflow="fold")
    for heading in ("n", "difference", "better/equal/worse", "p", "p Holm"):
        table.add_column(heading, justify="right")
    for row in result["pairs"]:
        counts = f"{row['second_better']}/{row['equal']}/{row['first_better']}"
        cells = [str(row["n"]), difference_text(row["difference"], row["ci95"])]
        cells += [counts if result["better"] else "–", p_text(row["p"]), p_text(row["p_holm"])]
        table.add_row(f"{row['second']} − {row['first']}", row["structure"], *cells)
    for row in result["overall"] if len(result["structures"]) > 1 else []:
        text = difference_text(row["difference"], row["ci95"])
        table.add_row(f"{row['second']} − {row['first']}", "(mean)", str(result["n_cases"]), text, "", "", "")
    return table


def print_comparison(result: Mapping[str, Any], out: Console) -> None:
    """Both tables and the sentence that says how they were made."""
    out.print(leaderboard_table(result))
    out.print(differences_table(result))
    out.print(summary(result), soft_wrap=True)


def summary(result: Mapping[str, Any]) -> str:
    """What the figures stand on, in one line."""
    said = f"{result['metric']} over {counted(result['n_cases'], 'case')} that all evaluations have"
    if result["left_out"]:
        said += f", {len(result['left_out'])} left out"
    if result["undefined"]:
        said += f", {len(result['undefined'])} figures not defined in some evaluation and left out"
    direction = f"{result['better']} is better; " if result["better"] else ""
    return f"{said}; {direction}intervals are 95 %, paired bootstrap; p: Wilcoxon signed-rank, Holm over all rows"


def text(result: Mapping[str, Any]) -> str:
    """The tables as plain text."""
    buffer = io.StringIO()
    longest = max((len(board["name"]) for board in result["evaluations"]), default=0)
    width = TEXT_WIDTH + 2 * longest + 30 * len(result["structures"])
    print_comparison(result, Console(file=buffer, width=width, color_system=None))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def leaderboard_csv(result: Mapping[str, Any]) -> str:
    """``rank, evaluation, structure, n, mean, ci95_low, ci95_high``; the structure ``mean`` is that over structures.

    A figure that is not defined is empty.
    """
    rows = []
    for board in result["evaluations"]:
        head = {"rank": board["rank"], "evaluation": board["name"]}
        for structure, one in board["structures"].items():
            rows.append(head | {"structure": structure, "n": one["n"], **_figures("mean", one)})
        rows.append(head | {"structure": "mean", "n": result["n_cases"], **_figures("mean", board)})
    return _csv(rows)


def differences_csv(result: Mapping[str, Any]) -> str:
    """The rows of ``pairs``, the interval in two columns."""
    return _csv(
        [
            {key: value for key, value in row.items() if key not in ("ci95", "difference")}
            | _figures("difference", row)
            for row in result["pairs"]
        ]
    )


def leaderboard_latex(result: Mapping[str, Any]) -> str:
    r"""The leaderboard as a ``tabular`` for the package booktabs, the best figure of each column in bold.

    A dagger marks a figure that differs from the best one's by a corrected p-value under 0.05; the mean over structures
    is not tested.
    """
    structures, boards = list(result["structures"]), result["evaluations"]
    columns: list[list[Any]] = [[board["mean"] for board in boards]]
    columns += [[board["structures"][name]["mean"] for board in boards] for name in structures]
    best = [_best(column, result["better"]) for column in columns]
    worse = {
        (row["structure"], frozenset((row["first"], row["second"])))
        for row in result["pairs"]
        if row["p_holm"] is not None and row["p_holm"] < LEVEL
    }
    lines = [
        f"% {one_line(summary(result))}",
        "% dagger: differs from the best of its column, corrected p < 0.05",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(["evaluation", "mean", *map(latex, structures)]) + r" \\",
        "\\midrule",
    ]
    for index, board in enumerate(boards):
        cells = [latex(board["name"])]
        for name, column, top in zip([None, *structures], columns, best, strict=True):
            rival = boards[top]["name"] if top is not None else None
            mark = r"$^\dagger$" if (name, frozenset((board["name"], rival))) in worse else ""
            cell = _cell(column[index]) + mark
            cells.append(f"\\textbf{{{cell}}}" if top is not None and column[index] == column[top] else cell)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def difference_text(difference: float | None, spread: Sequence[float | None]) -> str:
    """A signed difference and its interval.

    >>> difference_text(0.0123, (-0.01, 0.034))
    '+0.012 (-0.010 to +0.034)'
    """
    if difference is None or not math.isfinite(difference):
        return "–"
    low, high = spread
    if low is None or high is None or not math.isfinite(low):
        return f"{difference:+.3f}"
    return f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"


def p_text(p: float | None) -> str:
    """A p-value.

    >>> p_text(0.0312), p_text(0.00001), p_text(None)
    ('0.031', '< 0.001', '–')
    """
    return "< 0.001" if p is not None and p < 0.001 else figure(p)


def rank_text(rank: int | None) -> str:
    """A rank; a dash where the metric ranks nothing."""
    return "–" if rank is None else str(rank)


def _cell(value: float | None) -> str:
    return "--" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _best(column: Sequence[float | None], direction: str | None) -> int | None:
    """Where the best figure of a column is."""
    known = [(value, i) for i, value in enumerate(column) if value is not None and math.isfinite(value)]
    if direction is None or not known:
        return None
    return max(known, key=lambda one: (one[0], -one[1]))[1] if direction == "higher" else min(known)[1]


def _figures(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name], "ci95_low": one["ci95"][0], "ci95_high": one["ci95"][1]}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return csv_text(list(rows[0]), finite(list(rows)))
