"""The rows of all cells brought together: ``rows.jsonl`` and ``cells.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.files import finite, write_text
from rarevox.pipeline.study.job import CELLS, read_row
from rarevox.pipeline.study.plan import Plan
from rarevox.pipeline.study.rows import ROWS_FILE, Row, rows_text
from rarevox.pipeline.words import csv_text

TABLE_FILE = "cells.csv"


def rows_of(study: Path, plan: Plan) -> dict[str, Row]:
    """The rows that there are, by cell, in the plan's order."""
    found = ((cell, read_row(study, cell.name)) for cell in plan.cells)
    return {cell.name: row for cell, row in found if row is not None and row.labels == dict(cell.labels)}


def collect(study: Path, plan: Plan) -> list[Row]:
    """Write the rows of all cells that have one; returns them.

    Raises:
        OSError: no space.
    """
    rows = list(rows_of(study, plan).values())
    write_text(study / ROWS_FILE, rows_text(rows))
    write_text(study / TABLE_FILE, table(rows, list(plan.axes)))
    return rows


def table(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """A line for each row: its labels, then its figures.

    >>> print(table([Row("a_1", {"lr": "1e-3"}, "failed", "no memory")], ["lr"]).splitlines()[0][:40])
    cell,lr,state,train_dice,train_dice_q1,t
    """
    columns = ["cell", *(axis_column(axis) for axis in axes), *_figures(Row("", {}, "failed"))]
    return csv_text(columns, (_line(row) for row in rows))


def axis_column(axis: str) -> str:
    """An axis as a column; one that is called as a figure gets a word before it.

    >>> axis_column("lr"), axis_column("iterations")
    ('lr', 'axis iterations')
    """
    return f"axis {axis}" if axis in {"cell", *_figures(Row("", {}, "failed"))} else axis


def _line(row: Row) -> Mapping[str, Any]:
    labels = {axis_column(axis): label for axis, label in row.labels.items()}
    return finite({"cell": row.cell, **labels, **_figures(row)})  # type: ignore[no-any-return]


def _figures(row: Row) -> dict[str, Any]:
    return {
        "state": row.state,
        "train_dice": row.train_dice.median,
        "train_dice_q1": row.train_dice.q1,
        "train_dice_q3": row.train_dice.q3,
        "constant_dice": row.constant_dice,
        "test_mean_dice": None if row.test is None else row.test.mean_dice,
        "test_median_dice": None if row.test is None else row.test.median_dice,
        "foreground_share": row.foreground_share.median,
        "effective_patch": "x".join(map(str, row.effective_patch)),
        "iterations": row.iterations,
        "seconds": round(sum(row.seconds.values()), 1),
        "reason": row.reason,
        "left_out": ", ".join(row.left_out),
    }


def state_of(study: Path, cell: str, row: Row | None) -> str:
    """``done``, ``failed``, ``begun`` (cut off, or under way) or ``waiting``."""
    if row is not None:
        return row.state
    return "begun" if (study / CELLS / cell).is_dir() else "waiting"
