"""A cell whose files cannot be reached: told with its own reason, in its own process, and the others go on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from rarevox.pipeline.study.cell.run import run_cell
from rarevox.pipeline.study.engines.queue import Queue, failed
from rarevox.pipeline.study.job import Job, read_row
from rarevox.pipeline.study.plan import PlannedCell


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


@pytest.mark.parametrize(("number", "state"), [(errno.EACCES, "failed"), (errno.ENOSPC, "unwritten")])
def test_what_a_lost_cell_came_to_is_told_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    def refuse(path: Path, content: object) -> None:
        raise OSError(number, "no", str(path))

    monkeypatch.setattr("rarevox.pipeline.study.engines.queue.write_json", refuse)
    outcome = failed(job(tmp_path), "its process was lost")
    assert (outcome.state, "cell.json" in outcome.reason) == (state, True)
