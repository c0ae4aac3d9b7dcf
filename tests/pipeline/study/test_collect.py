"""The table of all cells: whatever axes and labels are called."""

from __future__ import annotations

import io
from pathlib import Path

from rarevox.pipeline.files import write_json
from rarevox.pipeline.study.collect import collect, rows_of, state_of, table
from rarevox.pipeline.study.plan import Plan, PlannedCell
from rarevox.pipeline.study.rows import Row
from rarevox.pipeline.words import csv_rows


def test_axes_that_are_called_as_figures_have_columns_of_their_own() -> None:
    row = Row("a", {"state": "=1+1", "cell": "x\ny", "lr": "1e-3"}, "failed", "[/b]\x1b[2J")
    (_, line), *rest = csv_rows(io.StringIO(table([row], ["state", "cell", "lr"])))
    assert not rest
    assert (line["axis state"], line["axis cell"], line["lr"]) == ("=1+1", "x\ny", "1e-3")
    assert (line["cell"], line["state"], line["train_dice"]) == ("a", "failed", "")
    assert "\x1b" not in line["reason"]


def test_rows_of_other_cells_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    cells = tuple(PlannedCell(name, {"axis": name}, {}) for name in "abcd")
    plan = Plan("p", "0", {}, {"axis": list("abcd")}, cells)
    for name, label in (("b", "b"), ("a", "a"), ("c", "another study's")):
        write_json(tmp_path / "cells" / name / "cell.json", Row(name, {"axis": label}, "done").to_json())
    (tmp_path / "cells" / "d").mkdir()
    (tmp_path / "cells" / "d" / "cell.json").write_text('{"cell": "d"')
    assert list(rows_of(tmp_path, plan)) == ["a", "b"]
    assert [row.cell for row in collect(tmp_path, plan)] == ["a", "b"]
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 2
    states = [state_of(tmp_path, cell.name, rows_of(tmp_path, plan).get(cell.name)) for cell in cells]
    assert states == ["done", "done", "begun", "begun"]
