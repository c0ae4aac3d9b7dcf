"""Workers as processes: real signals, real pipes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.workers.pool import Death, Pool, Task
from rarevox.pipeline.workers.processes import Processes
from tests.pipeline.workers.stub import Stub, hanging_outcomes


def run(tasks: list[Any], workers: int = 2, job: Stub | None = None) -> dict[int, Any]:
    pool = Pool(Processes(job or Stub()), workers)
    found = [(task.number, result) for task, result in pool.run(Task(n, work) for n, work in enumerate(tasks))]
    assert sorted(number for number, _ in found) == list(range(len(tasks)))
    return dict(found)


def test_several_processes_do_the_work_and_none_of_them_is_this_one() -> None:
    found = run([f"task {n}" for n in range(30)])
    assert [result[1] for _, result in sorted(found.items())] == [f"task {n}" for n in range(30)]
    workers = {result[0] for result in found.values()}
    assert os.getpid() not in workers


def test_signals_errors_and_hanging_cost_their_own_task_alone(tmp_path: Path) -> None:
    once = ("once", str(tmp_path / "died"))
    found = run(["a", "kill", "b", "crash", "c", "error", once, "d"])
    reasons = {number: result.reason for number, result in found.items() if isinstance(result, Death)}
    assert set(reasons) == {1, 3, 5}
    assert "SIGKILL" in reasons[1]
    assert "memory" in reasons[1]
    assert "SIGSEGV" in reasons[3]
    assert "this is no task" in reasons[5]
    assert found[6][1] == once


def test_a_task_that_hangs_is_ended() -> None:
    found = hanging_outcomes(Processes(Stub()), ["a"], ["b", "c"])
    assert [number for number, result in found.items() if isinstance(result, Death)] == [1]
    assert sorted(found) == [0, 1, 2, 3]


def test_work_that_cannot_be_done_at_all_is_one_sentence() -> None:
    with pytest.raises(RequestError, match="there is no such work"):
        run(["a"], job=Stub(refuses=True))
