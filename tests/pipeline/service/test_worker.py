"""What ends the process that computes costs one request: the next is answered by another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.service.jobs import Answer, Job
from rarevox.pipeline.service.worker import Supervised
from tests.pipeline.service.ill_fated import IllFated

Ask = Callable[[str], Answer]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").touch()
    return tmp_path / "run"


@pytest.fixture
def ask(run: Path, tmp_path: Path) -> Iterator[Ask]:
    model = Supervised(IllFated(str(run), (), "cpu", (), False, {}, 1000), seconds=1.5)
    model.open()
    numbers = iter(range(100))

    def asked(body: str) -> Answer:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / "body").write_text(body, encoding="ascii")
        return model(Job(folder, "labels"))

    yield asked
    model.close()


def test_what_ends_the_process_costs_one_request(ask: Ask) -> None:
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
    late = ask("hang")
    assert (late.status, b"not done within 1.5 s" in late.body) == (504, True)
    failed = ask("fails")
    assert (failed.status, b"ZeroDivisionError" in failed.body, b"secret" in failed.body) == (500, True, False)
    assert ask("d").status == 200


def test_a_run_that_is_away_for_a_while(ask: Ask, run: Path) -> None:
    run.unlink()
    assert ask("a").status == 200, "it is loaded"
    assert ask("crash").status == 503, "and cannot be loaded again"
    assert b"cannot be loaded" in ask("a").body
    run.touch()
    assert ask("a").status == 200


def test_a_run_that_cannot_be_loaded_is_told_at_the_start(tmp_path: Path) -> None:
    model = Supervised(IllFated(str(tmp_path / "none"), (), "cpu", (), False, {}, 1000), seconds=1.5)
    with pytest.raises(RequestError, match="is not there"):
        model.open()
    model.close()
