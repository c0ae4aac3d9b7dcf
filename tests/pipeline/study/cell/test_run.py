"""A cell that fails: its own reason in its own process, the others go on, and what was trained is kept."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.pipeline.bundle import LEFT_OUT
from rarevox.pipeline.entries import parse_setting
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.cell.run import run_cell
from rarevox.pipeline.study.engines.queue import Queue, failed
from rarevox.pipeline.study.job import Job, Outcome, read_row
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.rows import Row
from rarevox.pipeline.training import TrainingStep
from rarevox.pipeline.training.kept.run_checkpoint import has_checkpoint
from tests.conftest import SMALL


def job(study: Path, name: str = "a") -> Job:
    return Job(str(study), str(study), PlannedCell(name, {"seed": name}, {"iterations": 1}))


def claims_are_a_file(study: Path) -> None:
    (study / "claims").write_text("")


def log_is_a_folder(study: Path) -> None:
    (study / "logs" / "a.log").mkdir(parents=True)


def cell_is_a_file(study: Path) -> None:
    (study / "cells").mkdir()
    (study / "cells" / "a").write_text("")


@pytest.mark.parametrize("spoil", [claims_are_a_file, log_is_a_folder, cell_is_a_file])
def test_files_that_cannot_be_reached_are_the_cells_reason(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """As where another user's folder is in the way; a disk that is full is told apart, and stops all."""
    spoil(tmp_path)
    queue = Queue([job(tmp_path), job(tmp_path, "b")])
    first = queue.take()
    assert first is not None
    outcome = queue.settle(first, run_cell(first))
    assert outcome is not None and outcome.state == "failed"
    assert any(name in outcome.reason for name in ("claims", "a.log", "cells/a"))
    assert read_row(tmp_path, "a") is None
    assert queue.take() is not None


def test_a_cell_that_failed_goes_on_from_its_checkpoint_when_it_is_tried_again(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was trained is lost, and the row is that of a cell in which nothing failed."""
    texts = {"checkpoint#minutes": 0} | dict(map(parse_setting, SMALL))
    cell = PlannedCell("a", {"fold": "0"}, {"iterations": 8, "settings": texts})
    steps, taken = TrainingStep.__call__, []

    def step(self: TrainingStep, engine: Any, batch: Any) -> Any:
        taken.append(engine.state.iteration)
        if len(taken) == 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return steps(self, engine, batch)

    def tried(study: Path, *, retry: bool = False) -> Outcome:
        return run_cell(Job(str(study), str(dataset_dir), cell, device="cpu", section="", retry=retry))

    whole, once = tmp_path / "whole", tmp_path / "once"
    for folder in (whole, once):
        folder.mkdir()
    first = tried(whole)
    assert first.state == "done", first.reason
    monkeypatch.setattr(TrainingStep, "__call__", step)
    outcome = tried(once)
    assert outcome.state == "failed" and "the last checkpoint is kept" in outcome.reason
    assert has_checkpoint(once / "cells" / "a")
    assert tried(once).state == "kept" and has_checkpoint(once / "cells" / "a")
    assert tried(once, retry=True).state == "done"
    assert taken == [1, 2, 3, 4, 5, 6, 6, 7, 8]
    assert not (once / "cells" / "a" / "models").exists()
    rows = [replace(row, seconds={}) for row in (read_row(whole, "a"), read_row(once, "a")) if row is not None]
    assert len(rows) == 2 and rows[0] == rows[1]


def test_a_cell_that_failed_without_some_cases_begins_anew(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps were of other cases than those of the row that it would get; so does one whose time was over."""
    began = []

    def trained(job: Job, began_at: float) -> Row:
        began.append(sorted(path.name for path in job.folder.rglob("*") if path.is_file()))
        for file in (job.folder / "models" / "last.pt", job.folder / LEFT_OUT):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
        raise RequestError("memory ran out")

    monkeypatch.setattr("rarevox.pipeline.study.cell.run.trained_row", trained)
    for retry in (False, True):
        outcome = run_cell(replace(job(tmp_path), retry=retry))
        assert outcome.state == "failed"
    assert began == [[], []]


def test_a_cell_whose_time_was_over_has_nothing_to_go_on_from(dataset_dir: Path, tmp_path: Path) -> None:
    cell = PlannedCell("a", {"fold": "0"}, {"minutes": 1e-6, "settings": dict(map(parse_setting, SMALL))})
    for retry in (False, True):
        outcome = run_cell(Job(str(tmp_path), str(dataset_dir), cell, device="cpu", section="", retry=retry))
        assert "over before the first step" in outcome.reason
        assert not has_checkpoint(tmp_path / "cells" / "a")


@pytest.mark.parametrize(("number", "state"), [(errno.EACCES, "failed"), (errno.ENOSPC, "unwritten")])
def test_what_a_lost_cell_came_to_is_told_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    def refuse(path: Path, content: object) -> None:
        raise OSError(number, "no", str(path))

    monkeypatch.setattr("rarevox.pipeline.study.engines.queue.write_json", refuse)
    outcome = failed(job(tmp_path), "its process was lost")
    assert (outcome.state, "cell.json" in outcome.reason) == (state, True)
