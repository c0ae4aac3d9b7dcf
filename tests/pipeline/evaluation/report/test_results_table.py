"""The table in the terminal: every structure, in 80 columns too, and failures on standard error."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from rarevox.pipeline.console import Console
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.report.results_table import print_results, results_table


def _result() -> dict[str, Any]:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[2, 2, 2] = 2
    structures = {"whole lesion": 1, "[core]": 2}
    rows = case_rows("a", np.roll(labels, 1, 0), labels, (1, 1, 1), structures)
    return aggregate(rows + failed_rows("[b]", structures, "no [file]"), structures)


@pytest.mark.parametrize(("width", "narrow"), [(80, True), (110, False)])
def test_no_figure_is_cut_off(width: int, narrow: bool) -> None:
    text = io.StringIO()
    Console(file=text, width=width).print(results_table(_result(), narrow=narrow))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text.getvalue()
    assert any("whole lesion" in line for line in lines)
    assert any("[core]" in line for line in lines)


def test_print_separates_results_from_failures(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(_result() | {"unmatched_predictions": ["z.nii.gz"]})
    printed = capsys.readouterr()
    assert "mean Dice" in printed.out
    assert "failed [b]: no [file]" in printed.err
    assert "z.nii.gz" in printed.err
    assert "no [file]" not in printed.out


def test_cases_that_failed_alike_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for n in range(191) for row in failed_rows(f"c{n:03}", {"core": 1}, "there is no prediction for it")]
    print_results(aggregate([*rows, *failed_rows("torn", {"core": 1}, "cannot be read")], {"core": 1}))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed")]
    assert told == [
        "failed c000, c001, c002 and 188 more: there is no prediction for it",
        "failed torn: cannot be read",
    ]


def test_a_pipe_has_room_for_every_column_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    result = _result() | {"without_post_processing": _result()}
    result["structures"]["a structure with a long name of its own"] = result["structures"].pop("whole lesion")
    result["without_post_processing"]["structures"] = result["structures"]
    print_results(result)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "a structure with a long name of its own" in printed
    assert "; intervals are 95 %" in printed  # on one line with the rule


def test_one_case_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(aggregate(failed_rows("a", {"core": 1}, "lost"), {"core": 1}))
    assert "–––" not in capsys.readouterr().out


def test_false_positives_without_a_reference_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:15, 5:15, 5:15] = 1  # 1 ml
    none, structures = np.zeros_like(labels), {"core": 1}
    rows = case_rows("a", labels, none, (1, 1, 1), structures) + case_rows("b", none, none, (1, 1, 1), structures)
    print_results(aggregate(rows, structures))
    told = "core: the reference is empty in 2 cases, with 0.500 ml of false positives on average"
    assert told in capsys.readouterr().out
    print_results(aggregate(case_rows("b", none, none, (1, 1, 1), structures), structures))
    assert "reference is empty in" not in capsys.readouterr().out
