"""The table in the terminal: every structure, in 80 columns too, and failures on standard error."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.evaluation.aggregate import aggregate
from pipeline.evaluation.metrics import case_rows, failed_rows
from pipeline.evaluation.results_table import print_results, results_table


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
