"""Runs that are killed around a validation: taken up, they have the validations of an uninterrupted run."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.compose import read_yaml, write_yaml
from rarevox.pipeline.training import TrainingStep
from rarevox.pipeline.training import validation as module
from rarevox.pipeline.training.dice_metric import HardDice
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint
from rarevox.pipeline.training.record.run_log import RunLog, read_rows
from rarevox.pipeline.training.train import train
from rarevox.pipeline.training.validation import Validation
from tests.pipeline.training.test_survival import equal

SETTINGS = (
    *("network_def#width=2", "patch_size=[8,8,8]", "batch_size=1", "epoch_length=5", "optimizer#lr=0.01"),
    "optimizer#_target_=torch.optim.AdamW",  # with which every validation is better than the one before
    *("validations=3", "validation_cases=1", "validation#share=1e9", "log#tensorboard=false"),
)


class Killed(BaseException):
    """No handler of the trainer takes it, as none takes SIGKILL."""


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A killed run does not give the signals back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(dataset_dir, folder, settings=SETTINGS, iterations=9, device="cpu") == 0
    assert all(row["best"] for row in history(folder))  # so that every validation writes a model
    return folder


def history(run: Path) -> list[dict[str, Any]]:
    rows = read_rows(run / "logs" / "validation.jsonl")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def killed(dataset: Path, run: Path) -> None:
    """Train until the kill; a checkpoint that was being written then is whole."""
    with pytest.raises(Killed):
        train(dataset, run, settings=SETTINGS, iterations=9, device="cpu")
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


MOMENTS = {
    "while it runs": (Validation, "_run"),
    "before it is logged": (RunLog, "validation"),
    "before its model is written": (module, "save_weights"),
    "before the checkpoint": (RunCheckpoint, "_now_and_then"),
}


@pytest.mark.parametrize("step", [3, 6], ids=["first", "second"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_validation_that_a_kill_leaves_without_its_checkpoint_comes_again_at_its_step(
    moment: str, step: int, whole: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three validations of nine steps, at 3, 6 and 9. The first has a checkpoint right before it; none is between it
    and the second, of which the log alone tells."""
    run = tmp_path / "run"
    place, name = MOMENTS[moment]
    original = getattr(place, name)
    at = []

    def die(*arguments: Any) -> Any:
        if at and at[-1] == step:
            raise Killed
        return original(*arguments)

    validate = Validation.validate

    def note(self: Validation, engine: Any) -> bool:
        at.append(engine.state.iteration)
        return validate(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "validate", note)
        patch.setattr(place, name, die)
        killed(dataset_dir, run)
    assert train(dataset_dir, run, device="cpu", resume=True) == 0
    assert history(run) == history(whole)
    assert [row["iteration"] for row in history(run)] == [3, 6, 9]
    found, expected = (load_tensors(folder / "models" / "last.pt") for folder in (run, whole))
    for part in ("best", "best_rows", "without_gain", "done", "iteration", "due"):
        assert found["validation"][part] == expected["validation"][part]
    assert equal(*(load_tensors(folder / "models" / "model.pt") for folder in (run, whole)))


def test_a_signal_during_a_validation_leaves_it_to_be_done_at_its_step(
    whole: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_it = Validation._run

    def interrupted(self: Validation) -> None:
        if self.budget.progress(6) and self.iteration == 3:
            signal.raise_signal(signal.SIGTERM)
        run_it(self)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "_run", interrupted)
        assert train(dataset_dir, tmp_path / "run", settings=SETTINGS, iterations=9, device="cpu") == 143
    assert load_tensors(tmp_path / "run" / "models" / "last.pt")["validation"]["due"] == 6
    assert train(dataset_dir, tmp_path / "run", device="cpu", resume=True) == 0
    assert history(tmp_path / "run") == history(whole)


def test_a_signal_in_the_step_before_a_validation_leaves_it_to_be_done_at_its_step(
    whole: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingStep.__call__

    def interrupted(self: TrainingStep, engine: Any, batch: Any) -> Any:
        if engine.state.iteration == 6:
            signal.raise_signal(signal.SIGTERM)
        return step(self, engine, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", interrupted)
        assert train(dataset_dir, tmp_path / "run", settings=SETTINGS, iterations=9, device="cpu") == 143
    assert load_tensors(tmp_path / "run" / "models" / "last.pt")["iteration"] == 6
    assert train(dataset_dir, tmp_path / "run", device="cpu", resume=True) == 0
    assert history(tmp_path / "run") == history(whole)


def test_points_that_were_chosen_meanwhile_are_no_part_of_later_validations(whole: Path, tmp_path: Path) -> None:
    """Scores before and after would be of different labels, and a worse model could take the place of a better one."""
    dataset = Path(read_yaml(whole / "configs" / "train.yaml")["dataset_dir"])
    plain, chosen = (Path(shutil.copytree(whole, tmp_path / name)) for name in ("plain", "chosen"))
    points = {"ball": {"threshold": 0.01}}
    for stage in ("train", "evaluate", "inference"):
        file = chosen / "configs" / f"{stage}.yaml"
        file.write_text(write_yaml(read_yaml(file) | {"operating_points": points}))
    for run in (plain, chosen):
        assert train(dataset, run, resume=True, iterations=15, device="cpu") == 0
    assert len(history(plain)) > len(history(whole))
    assert history(chosen) == history(plain)
    assert read_yaml(chosen / "configs" / "inference.yaml")["operating_points"] == points


def test_what_was_validated_comes_again_whatever_the_clock_says(
    whole: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second, and taken up where validation has no time left but for the last."""
    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_now_and_then", lambda self, engine: engine.state.iteration == 7 and _kill())
        killed(dataset_dir, tmp_path / "run")
    assert len(history(tmp_path / "run")) == 2
    path = tmp_path / "run" / "configs" / "train.yaml"
    path.write_text(path.read_text().replace("share: 1000000000.0", "share: 0.0"))
    assert "share: 0.0" in path.read_text()
    assert train(dataset_dir, tmp_path / "run", device="cpu", resume=True) == 0
    assert history(tmp_path / "run") == history(whole)


def test_a_run_that_patience_ended_says_so_when_it_is_taken_up(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HardDice, "compute", lambda self: 0.5)
    run = tmp_path / "run"
    assert train(dataset_dir, run, settings=[*SETTINGS, "patience=1"], iterations=9, device="cpu") == 0
    assert load_tensors(run / "models" / "last.pt")["iteration"] == 6  # the second of three validations is no better
    capsys.readouterr()
    assert train(dataset_dir, run, device="cpu", resume=True, iterations=20) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing was to be done: patience ended the run" in told and "budget was used up" not in told


def _kill() -> None:
    raise Killed
