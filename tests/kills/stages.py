"""The stages that are killed: an entry each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rarevox.pipeline.training.train import FOLDERS
from tests.conftest import write_task


@dataclass(frozen=True)
class Given:
    """What the stages work on: a source of scans, a prepared dataset, a trained run."""

    task: Path
    dataset: Path
    run: Path


Command = Callable[[Given, Path], list[str]]


def nothing(given: Given, place: Path) -> None:
    """A stage whose place begins empty."""


@dataclass(frozen=True)
class Stage:
    """A command that is ended and called again.

    Attributes:
        first: its arguments, given the inputs and the folder under which everything is written.
        again: the arguments of the call that goes on after it; None for the same.
        lay: what stands in the folder before.
        writes: folders in which it writes files, by pattern.
    """

    first: Command
    again: Command | None = None
    lay: Callable[[Given, Path], None] = nothing
    writes: tuple[str, ...] = ()


def _prepare(given: Given, place: Path) -> list[str]:
    options = ["--holdout", "0.25", "--folds", "2", "--workers", "1", "--fix", "--n4"]
    return ["prepare", str(place / "task"), "--output", str(place / "dataset"), *options]


def _few_scans(given: Given, place: Path) -> None:
    write_task(place / "task", cases=4, shape=(16, 16, 14))


def _predict(given: Given, place: Path) -> list[str]:
    scans = [str(given.task / "imagesTr" / f"case_{number:02}.nii.gz") for number in range(2)]
    maps = ["--entropy", "--probabilities", "uint8"]
    here = ["--device", "cpu", "--workers", "0"]  # all operations on files in the process whose moments are counted
    return ["predict", str(given.run), *scans, "--output", str(place / "maps"), *here, *maps]


def _evaluate(given: Given, place: Path) -> list[str]:
    return ["evaluate", str(place / "run"), str(given.dataset), "--device", "cpu"]


def _copy_run(given: Given, place: Path) -> None:
    shutil.copytree(given.run, place / "run")


TRAINED = (
    "network_def#width=2",
    "patch_size=[8,8,8]",
    "batch_size=1",
    "epoch_length=2",
    "validations=2",
    "validation#share=1e9",
    "validation_cases=1",
    "checkpoint#minutes=0",
    "checkpoint#share=1e9",
    "log#tensorboard=false",
    "cache=memory",
    "precision#name=float32",
)


def _train(given: Given, place: Path) -> list[str]:
    settings = [part for setting in TRAINED for part in ("--set", setting)]
    more = ["--iterations", "4", "--device", "cpu", *settings]
    return ["train", str(given.dataset), "--output", str(place / "run"), *more]


def _resume(given: Given, place: Path) -> list[str]:
    """What is to be typed: where nothing has begun, the same again."""
    if not (place / "run" / "configs" / "train.yaml").exists():
        return _train(given, place)
    return ["train", str(given.dataset), "--output", str(place / "run"), "--device", "cpu", "--resume"]


def _predict_on(given: Given, place: Path) -> list[str]:
    return [*_predict(given, place), "--keep"]


_OF_EVALUATION = ("run", "run/configs", "run/evaluation/*", "run/evaluation/*/predictions")

STAGES = {
    "prepare": Stage(_prepare, lay=_few_scans, writes=("dataset", "dataset/*/*")),
    "predict": Stage(_predict, again=_predict_on, writes=("maps",)),
    "evaluate": Stage(_evaluate, lay=_copy_run, writes=_OF_EVALUATION),
    "train": Stage(_train, again=_resume, writes=("run", *(f"run/{name}" for name in FOLDERS))),
}
