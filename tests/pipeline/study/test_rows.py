"""Rows of a study as files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.plan import Plan, PlannedCell, read_plan, write_plan
from rarevox.pipeline.study.rows import CaseDice, HeldOut, Quartiles, Row, read_rows, rows_text

DONE = Row(
    "UNet_1e-3",
    {"network": "UNet", "lr": "1e-3"},
    "done",
    iterations=3,
    train_dice=Quartiles(0.5, 0.25, math.nan),
    last=2,
    effective_patch=(16, 16, 1),
    patch_size=(56, 56, 1),
    batch_size=5,
    test=HeldOut((CaseDice("a", "lesion", 0.5), CaseDice("b", "lesion")), 0.5, 0.5),
    seconds={"steps": 1.5},
)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [DONE, Row("b", {"network": "\udcffUNet\n"}, "failed", "no memory")]
    (tmp_path / "rows.jsonl").write_text(rows_text(rows[:1]) + rows_text(rows[1:]).replace("\udcff", "\\udcff"))
    found = read_rows(tmp_path)
    assert [row.to_json() for row in found] == [row.to_json() for row in rows]
    assert math.isnan(found[0].train_dice.q3) and math.isnan(found[0].test.cases[1].dice)


def test_json_holds_no_nan() -> None:
    assert "NaN" not in json.dumps(DONE.to_json(), allow_nan=False)
    assert DONE.to_json()["train_dice"] == {"median": 0.5, "q1": 0.25, "q3": None, "last": 2}


def test_figures_are_apart_from_times() -> None:
    assert not {"seconds", "versions"} & set(DONE.same_figures())


@pytest.mark.parametrize("line", ["{}", "[1]", "null", '{"cell": 1, "labels": {}, "state": "done"}', "{"])
def test_other_lines_are_refused_by_their_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(rows_text([DONE]) + line + "\n")
    with pytest.raises(RequestError, match="line 2"):
        read_rows(tmp_path)


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = Plan(
        "paper",
        "0" * 64,
        {"folder": "/data", "fingerprint": "f"},
        {"lr": ["1e-3"]},
        (PlannedCell("1e-3", {"lr": "1e-3"}, {"settings": {"optimizer#lr": 0.001}}),),
        iterations=5,
    )
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


@pytest.mark.parametrize("text", ["{}", "[]", '{"version": 2}', '{"version": 1}', '{"version": 1, "cells": 3}'])
def test_other_plans_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(RequestError, match=r"plan\.json"):
        read_plan(tmp_path)
