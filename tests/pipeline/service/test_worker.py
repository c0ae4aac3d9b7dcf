"""What ends the process that computes costs one request: the next is answered by another process."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.calls.kept import origin
from rarevox.pipeline.inference.calls.networks import Networks
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.service.jobs import Answer, Job
from rarevox.pipeline.service.model import Model
from rarevox.pipeline.service.worker import Answers, Supervised
from rarevox.pipeline.workers.processes import Processes
from tests.pipeline.service.ill_fated import IllFated

Ask = Callable[[str], Answer]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").touch()
    return tmp_path / "run"


@pytest.fixture
def models() -> list[Supervised]:
    return []


@pytest.fixture
def ask(run: Path, tmp_path: Path, models: list[Supervised]) -> Iterator[Ask]:
    model = Supervised(IllFated(Networks((str(run),), "cpu"), {}, 1000), seconds=600.0)
    models.append(model)
    model.open()
    numbers = iter(range(100))

    def asked(body: str) -> Answer:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / "body").write_text(body, encoding="ascii")
        return model(Job(folder, "labels"))

    yield asked
    model.close()


def limit(model: Supervised, seconds: float) -> None:
    """For what hangs alone: a slow machine may take any time for what ends by itself."""
    model.seconds = model._pool.seconds = seconds


def test_what_ends_the_process_costs_one_request(
    ask: Ask, models: list[Supervised], capsys: pytest.CaptureFixture[str]
) -> None:
    first = ask("a")
    assert (first.status, first.body[:5]) == (200, b"a by ")
    assert ask("b").body.split()[-1] == first.body.split()[-1], "one process for all"
    found = ask("crash")
    assert found.status == 422
    assert b"SIGSEGV" in found.body
    again = ask("c")
    assert again.status == 200
    assert again.body.split()[-1] != first.body.split()[-1]
    assert ask("once").status == 200, "a second try"
    assert ask("memory").status == 503
    limit(models[0], 0.5)
    late = ask("hang")
    assert (late.status, b"not done within 0.5 s" in late.body) == (504, True)
    limit(models[0], 600.0)
    failed = ask("fails")
    assert (failed.status, b"ZeroDivisionError" in failed.body, b"secret" in failed.body) == (500, True, False)
    assert ask("d").status == 200
    # Two for the crash, one for what crashed once, two for the killed and one for the hanging.
    assert models[0].replaced == 6
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("another one takes its place") == 6
    assert "the process that computes crashed (SIGSEGV)" in told


def test_a_run_that_is_away_for_a_while(ask: Ask, run: Path) -> None:
    run.unlink()
    assert ask("a").status == 200, "it is loaded"
    assert ask("crash").status == 503, "and cannot be loaded again"
    assert b"cannot be loaded" in ask("a").body
    run.touch()
    assert ask("a").status == 200


def test_a_process_that_ended_with_nothing_to_do_counts_for_nothing(ask: Ask, models: list[Supervised]) -> None:
    """The job after it has both of its attempts."""
    (worker,) = models[0].engine.ids()
    os.kill(worker, signal.SIGKILL)
    while models[0].engine._processes[0].is_alive():  # type: ignore[attr-defined]
        time.sleep(0.01)
    assert ask("once").status == 200


def test_where_no_process_begins_the_next_job_tries_again(
    ask: Ask, models: list[Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Processes, worker: int) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(Processes, "start", refuse)
        assert ask("crash").status == 503
        assert "Resource temporarily unavailable" in models[0].state()
        assert ask("a").status == 503
    assert ask("a").status == 200
    assert models[0].state() == "ok"


def test_a_loading_that_hangs_is_ended(run: Path, tmp_path: Path) -> None:
    model = Supervised(IllFated(Networks((str(run),), "cpu"), {}, 1000), seconds=60.0)
    model.open()
    (tmp_path / "body").write_text("crash", encoding="ascii")
    run.write_text("slow", encoding="ascii")
    model.begin_seconds = model._pool.begin_seconds = 0.5
    assert model(Job(tmp_path, "labels")).status == 503
    model.close()


def test_closed_by_another_thread_no_process_begins(ask: Ask, models: list[Supervised]) -> None:
    found: list[Answer] = []
    limit(models[0], 1.5)
    asking = threading.Thread(target=lambda: found.append(ask("hang")))
    asking.start()
    time.sleep(0.2)
    models[0].close()
    asking.join(20)
    assert not asking.is_alive()
    assert found[0].status == 503
    assert models[0].engine.ids() == []
    assert ask("a").status == 503


def test_another_model_in_the_runs_folder_is_not_loaded(run_dir: Path) -> None:
    made = {**origin([run_dir], []), "models": ["of another content"]}
    with pytest.raises(RequestError, match="another model than when the service began"):
        Answers(Networks((str(run_dir),), "cpu"), made, 1000).open()


def test_an_attempt_that_ended_its_process_is_followed_by_a_whole_one(
    run_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    """The upload is there for it, and what the first made of it is not in its way."""
    model = Model(Segmenter(run_dir, device="cpu"), origin([run_dir], []), 1_000_000)
    job = Job(tmp_path, "volumes")
    shutil.copy(task_dir / "imagesTr" / "case_00.nii.gz", tmp_path / "body")

    class Killed(BaseException):
        pass

    def killed(items: Any) -> Any:
        raise Killed

    segmenter, model.segmenter = model.segmenter, killed
    with pytest.raises(Killed):
        model(job.wanted)
    model.segmenter = segmenter
    assert model(job.wanted).status == 200


def test_a_run_that_cannot_be_loaded_is_told_at_the_start(tmp_path: Path) -> None:
    model = Supervised(IllFated(Networks((str(tmp_path / "none"),), "cpu"), {}, 1000), seconds=1.5)
    with pytest.raises(RequestError, match="is not there"):
        model.open()
    model.close()
