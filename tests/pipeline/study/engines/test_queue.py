"""What engines hand out, try again and give up; claims that end with their process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.claims import claimed
from rarevox.pipeline.study.engines import queue as engine
from rarevox.pipeline.study.engines.queue import Queue, failed
from rarevox.pipeline.study.job import Job, Outcome, read_row
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.plan import PlannedCell


def job(study: Path, name: str = "a") -> Job:
    return Job(str(study), str(study), PlannedCell(name, {"seed": name}, {}))


def test_jobs_are_handed_out_in_order_and_those_elsewhere_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 0.0)
    jobs = [job(tmp_path, name) for name in "abc"]
    queue = Queue(jobs)
    assert queue.take() is jobs[0]
    assert queue.settle(jobs[0], Outcome("a", "elsewhere")) is None
    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [jobs[1], jobs[2], jobs[0], None]
    monkeypatch.setattr(engine, "PATIENCE_SECONDS", 0.0)
    assert queue.settle(jobs[0], Outcome("a", "elsewhere")) == Outcome("a", "elsewhere")
    assert not queue


def test_a_full_disk_stops_what_waits(tmp_path: Path) -> None:
    queue = Queue([job(tmp_path, "a"), job(tmp_path, "b")])
    first = queue.take()
    assert first is not None and queue.settle(first, Outcome("a", "unwritten", "full")) is not None
    assert queue.take() is None and not queue


def test_a_lost_cell_is_tried_once_more_and_then_is_a_row(tmp_path: Path) -> None:
    queue = Queue([job(tmp_path)])
    first = queue.take()
    assert first is not None
    assert queue.lost(first, "signal SIGKILL") is None
    assert queue.take() is first
    outcome = queue.lost(first, "signal SIGKILL")
    assert outcome is not None and outcome.state == "failed"
    row = read_row(tmp_path, "a")
    assert row is not None and not row.done and "ended from outside 2 times (signal SIGKILL)" in row.reason
    assert row.labels == {"seed": "a"}


def test_a_process_that_ended_by_itself_is_not_put_down_to_memory(tmp_path: Path) -> None:
    queue = Queue([job(tmp_path)])
    outcome = [queue.lost(job(tmp_path), "status 1") for _ in range(2)][1]
    assert outcome is not None and "ended 2 times (status 1)" in outcome.reason
    assert "workers.log" in outcome.reason and "memory" not in outcome.reason


def test_one_holder_at_a_time_also_within_a_process(tmp_path: Path) -> None:
    with claimed(tmp_path, "a") as first, claimed(tmp_path, "a") as second, claimed(tmp_path, "b") as other:
        assert (first, second, other) == (True, False, True)
        assert failed(job(tmp_path), "no reason").state == "elsewhere"
    with claimed(tmp_path, "a") as again:
        assert again


def _hold(study: Path, line: Any) -> None:
    with claimed(study, "a") as mine:
        line.send(mine)
        signal.pause()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    line, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, theirs))
    process.start()
    assert line.recv()
    with claimed(tmp_path, "a") as mine:
        assert not mine
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with claimed(tmp_path, "a") as mine:
        assert mine


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "slurm"},
        {"engine": "ray", "workers": 2},
        {"address": "auto"},
        {"cpus_per_cell": 1.0},
        {"gpus_per_cell": 1.0},
    ],
)
def test_places_that_do_not_fit_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="--engine"):
        Places(**options)


def test_as_many_at_once_as_the_cores_have_threads_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarevox.pipeline.study.places.cores", lambda: 8)
    assert [Places().at_once(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]
    assert Places(workers=3).at_once(8) == 3
    assert Places(cuda=True).at_once(1) == 1
