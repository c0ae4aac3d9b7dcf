"""A study ends with its report, which can be had at any other time too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rarevox.pipeline.cli import main
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.study import study


def test_a_study_that_ran_has_its_report_with_a_case_after_each_loss(tiny_study: tuple[Path, Path]) -> None:
    _, folder = tiny_study
    page = (folder / "report" / "study.html").read_text(encoding="utf-8")
    assert "4 of 4" in page
    assert 'id="claims"' not in page  # none of the paper's is tested by four cells
    for section in ("dice", "held-out", "example", "ranks", "robustness"):
        assert f'id="{section}"' in page, section
    assert "patch and learning rate are not both axes" in page
    assert json.loads((folder / "report" / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]


@pytest.mark.usefixtures("with_report")
def test_a_call_that_runs_nothing_leaves_the_report(tiny_study: tuple[Path, Path], dataset_dir: Path) -> None:
    file, folder = tiny_study
    before = (folder / "report" / "study.html").stat().st_mtime_ns
    assert study(file, dataset_dir, folder, places=Places(workers=1), device="cpu") == 0
    assert (folder / "report" / "study.html").stat().st_mtime_ns == before


@pytest.mark.usefixtures("with_report")
def test_the_command_writes_the_report_of_a_study_as_it_is(
    tiny_study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(tiny_study[1], tmp_path / "copy", ignore=shutil.ignore_patterns("report", "models"))
    shutil.rmtree(copy / "cells" / "gdl_1e-3")
    monkeypatch.setattr("sys.argv", ["rarevox", "study", "--report", str(copy)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "3 of 4" in (copy / "report" / "study.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [[], ["FILE"], ["--report", "gone"]])
def test_what_is_missing_is_said(arguments: list[str], monkeypatch: pytest.MonkeyPatch, with_report: None) -> None:
    monkeypatch.setattr("sys.argv", ["rarevox", "study", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
