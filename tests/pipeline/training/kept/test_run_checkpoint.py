from __future__ import annotations

import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.kept import run_checkpoint as module
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint, has_checkpoint


def checkpoint(folder: Path, resume: bool = False, **options: Any) -> tuple[RunCheckpoint, Any, Any]:
    """A checkpoint of one linear layer, the layer, and an engine that it follows."""
    layer = torch.nn.Linear(3, 1)
    loader = SimpleNamespace(batch_size=4, sampler=SimpleNamespace(start=0))
    made = RunCheckpoint(folder / "models", {"layer": layer}, loader, resume=resume, **options)
    engine = Engine(lambda engine, batch: None)
    engine.state.epoch_length = 10
    made.attach(engine)
    return made, layer, engine


def save_at(made: RunCheckpoint, layer: Any, engine: Any, *steps: int) -> None:
    for step in steps:
        engine.state.iteration = step
        torch.nn.init.constant_(layer.weight, float(step))
        made.save(engine)


def test_it_takes_up_parts_iteration_epoch_and_sampler(tmp_path: Path) -> None:
    save_at(*checkpoint(tmp_path), 10, 23)
    made, layer, engine = checkpoint(tmp_path, resume=True)
    assert layer.weight.tolist() == [[23.0] * 3]
    assert (engine.state.iteration, engine.state.epoch, made.loader.sampler.start) == (23, 2, 92)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"last.pt", "previous.pt"}


def test_no_damaged_checkpoint_is_ever_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut at 40 lengths, and with one bit flipped at 40 places of its tensors and tables: the one before is taken."""
    save_at(*checkpoint(tmp_path), 1, 2)
    last, previous = tmp_path / "models" / "last.pt", tmp_path / "models" / "previous.pt"
    whole, before = last.read_bytes(), previous.read_bytes()
    rng = random.Random(0)
    cuts = [whole[: rng.randrange(len(whole))] for _ in range(40)]
    flips = []
    for _ in range(40):
        place = whole.index(torch.full((3,), 2.0).numpy().tobytes()) + rng.randrange(12)
        flips.append(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
    for damaged in (b"", *cuts, *flips):
        last.write_bytes(damaged)
        previous.write_bytes(before)
        _, layer, engine = checkpoint(tmp_path, resume=True)
        assert layer.weight.tolist() == [[1.0] * 3]
        assert engine.state.iteration == 1
        assert "last.pt is not a readable checkpoint" in " ".join(capsys.readouterr().err.split())
        assert not last.exists()
        last.with_name("damaged.pt").unlink()


def test_a_damaged_checkpoint_without_one_before_is_refused(tmp_path: Path) -> None:
    save_at(*checkpoint(tmp_path), 1)
    (tmp_path / "models" / "last.pt").write_bytes(b"PK")
    with pytest.raises(RequestError, match="not a readable checkpoint"):
        checkpoint(tmp_path, resume=True)


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not has_checkpoint(tmp_path)
    _, _, engine = checkpoint(tmp_path, resume=True)
    assert engine.state.iteration == 0
    assert "begins anew" in capsys.readouterr().err


@pytest.mark.parametrize(("minutes", "copying", "between"), [(1.0, 0.1, 60.0), (1.0, 6.0, 120.0), (0.0, 0.5, 10.0)])
def test_training_is_held_up_for_a_twentieth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, copying: float, between: float
) -> None:
    """A copy of 6 s is worth 120 s of training, one of 0.1 s waits for the minute, which counts from the copy."""
    made, _, engine = checkpoint(tmp_path, minutes=minutes)
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(content: Any) -> Any:
        now[0] += copying
        return content

    monkeypatch.setattr(module, "snapshot", slow)
    engine.state.iteration = 1
    made.save(engine, wait=False)
    made._background.finish()
    assert made.seconds_between() == pytest.approx(between)
    for seconds, saved in ((between - 0.01, 1), (between + 0.01, 3)):
        engine.state.iteration += 1
        now[0] = 1000.0 + seconds
        made._now_and_then(engine)
        made._background.finish()
        assert load_tensors(made.path)["iteration"] == saved


def test_a_long_write_neither_holds_training_up_nor_sees_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While step 1 is being written, step 2 is taken and due; it is written once the first is."""
    made, layer, engine = checkpoint(tmp_path, minutes=0)
    free, write = threading.Event(), module.save_tensors
    monkeypatch.setattr(module, "save_tensors", lambda *given, **named: (free.wait(60), write(*given, **named)))
    monkeypatch.setattr(made, "seconds_between", lambda: 0.0)
    for step in (1, 2):
        engine.state.iteration = step
        torch.nn.init.constant_(layer.weight, float(step))
        made._now_and_then(engine)
        assert not made.path.exists()
    assert made._background.under_way
    free.set()
    made._background.finish()
    found = load_tensors(made.path)
    assert (found["iteration"], found["layer"]["weight"].tolist()) == (1, [[1.0] * 3])
    made.save(engine)
    found = load_tensors(made.path)
    assert (found["iteration"], found["layer"]["weight"].tolist()) == (2, [[2.0] * 3])


def test_a_write_that_failed_beside_the_training_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _, engine = checkpoint(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space")

    engine.state.iteration = 1
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_tensors", full)
        made.save(engine, wait=False)
        made._background.finish()
    assert made.failed
    assert "checkpoint not written: no space" in capsys.readouterr().err
    made.save(engine)
    assert not made.failed
    assert load_tensors(made.path)["iteration"] == 1


def test_validations_are_framed(tmp_path: Path) -> None:
    """Before the first, before one that would lose more than a minute, and after every one."""
    saved: list[int] = []
    validation = SimpleNamespace(before=[], iteration=0)
    made, _, engine = checkpoint(tmp_path, validation=validation)
    write = made._write
    made._write = lambda content: (saved.append(content["iteration"]), write(content))  # type: ignore[assignment]
    for step, validated, expected_seconds in ((1, True, 1.0), (2, False, 0.0), (3, True, 5.0), (4, True, 61.0)):
        engine.state.iteration = step
        if validated:
            validation.before[0](engine, expected_seconds)
            validation.iteration = step
        made._now_and_then(engine)
    made._background.finish()
    assert saved == [1, 1, 3, 4, 4]
