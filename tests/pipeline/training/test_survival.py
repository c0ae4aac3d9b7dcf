"""Trainings that are killed: resumed they go on exactly, and none hangs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.locks import held
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from tests import forked
from tests.conftest import SMALL

TINY = (
    "network_def#width=2",
    "network_def#dropout=0.2",
    "patch_size=[8,8,8]",
    "batch_size=1",
    "epoch_length=7",
    "validations=10",
    "validation#share=1e9",
    "validation_cases=1",
    "ema_decay=0.99",
    "checkpoint#minutes=0",
    "checkpoint#share=0.2",
)


def run_parts(dataset: Path, run: Path, kills: int, most_seconds: float = 0.0) -> list[dict[str, int]]:
    """A training of 100 steps that is killed so often, each time within so many seconds; what came of each part."""
    options = {"dataset": str(dataset), "run": str(run), "settings": TINY, "iterations": 100}
    options |= {"kills": kills, "seed": 1, "most_seconds": most_seconds}
    tool = Path(__file__).with_name("kill_often.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked.run([str(tool), json.dumps(options)], env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr
    parts: list[dict[str, int]] = json.loads(done.stdout)
    assert parts[-1] == {"signal": 0, "status": 0}, done.stderr
    return parts


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, through nested mappings and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_bit_for_bit(
    dataset_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Losses, validations and all that is trained equal an uninterrupted run's after kills at random times
    (``--kills 20``)."""
    kills = request.config.getoption("--kills")
    run_parts(dataset_dir, tmp_path / "whole", 0)
    seconds = read_rows(tmp_path / "whole" / "logs" / "train.jsonl")[-1]["seconds"]
    # In proportion to the machine's speed, so that kills meet the start as well as steps and validations.
    parts = run_parts(dataset_dir, tmp_path / "parts", kills, seconds / 2)
    assert len(parts) == kills + 1
    allowed = {signal.SIGKILL: {-9, 0}, signal.SIGTERM: {143, -15, 0}, signal.SIGINT: {130, 0}}
    assert all(part["status"] in allowed[part["signal"]] for part in parts[:-1])
    rows = [read_rows(tmp_path / name / "logs" / "train.jsonl") for name in ("whole", "parts")]
    assert [row["iteration"] for row in rows[1]] == list(range(1, 101))
    assert [row["loss"] for row in rows[1]] == [row["loss"] for row in rows[0]]
    scores = [read_rows(tmp_path / name / "logs" / "validation.jsonl") for name in ("whole", "parts")]
    told = [[{key: row[key] for key in row if key != "seconds"} for row in rows] for rows in scores]
    assert [row["iteration"] for row in told[0]] == list(range(10, 101, 10))
    assert told[1] == told[0]
    assert equal(*(load_tensors(tmp_path / name / "models" / "model.pt") for name in ("whole", "parts")))
    whole, resumed = (load_tensors(tmp_path / name / "models" / "last.pt") for name in ("whole", "parts"))
    for name in ("network", "optimizer", "step", "ema", "patch_counts", "iteration"):
        assert equal(whole[name], resumed[name]), name
    left = {path.name for path in (tmp_path / "parts" / "models").iterdir()}
    assert left == {"last.pt", "previous.pt", "model.pt"}


def command(dataset: Path, run: Path, *settings: str) -> list[str]:
    code = "from rarevox.pipeline.cli import main; import sys; main(sys.argv[1:])"
    texts = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    return ["-c", code, "train", str(dataset), "--output", str(run), "--iterations", "100000", *texts]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_run_that_can_be_used_and_resumed(
    number: int, status: int, dataset_dir: Path, tmp_path: Path
) -> None:
    """The signal goes to the loader's workers as well, as a terminal and a batch system send it."""
    run = tmp_path / "run"
    arguments = command(dataset_dir, run, "workers=2", "checkpoint#minutes=0")
    process = forked.Forked(arguments, new_session=True)
    for _ in range(12_000):  # ten minutes against a hang
        if (run / "models" / "last.pt").exists():
            break
        assert process.is_alive(), process.stderr()
        time.sleep(0.05)
    os.killpg(process.pid, number)
    done = process.wait(timeout=600)
    errors = done.stderr
    assert done.returncode == status, errors
    assert "Traceback" not in errors
    assert "--resume" in errors
    assert (run / "models" / "model.pt").exists()
    steps = len(read_rows(run / "logs" / "train.jsonl"))
    assert steps == load_tensors(run / "models" / "last.pt")["iteration"] > 0
    assert train(dataset_dir, run, iterations=steps + 2, device="cpu", resume=True) == 0
    assert [row["iteration"] for row in read_rows(run / "logs" / "train.jsonl")] == list(range(1, steps + 3))


AT_STEP = """
import multiprocessing, os, resource, signal, sys
from rarevox.pipeline.cli import main
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint
def act(self, engine):
    if engine.state.iteration == 3:
        self.save(engine)
        {act}
    elif engine.state.iteration == 5:
        self.save(engine)
RunCheckpoint._now_and_then = act
main(sys.argv[1:])
"""


def at_step_3(act: str, arguments: list[str]) -> tuple[int, str]:
    """Run the command with ``act`` done after step 3: exit status and standard error; one that hangs is an error."""
    done = forked.run(["-c", AT_STEP.format(act=act), *arguments[2:]])
    return done.returncode, done.stderr


def test_a_killed_loader_worker_ends_the_run_with_a_message(dataset_dir: Path, tmp_path: Path) -> None:
    act = "os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)"
    status, errors = at_step_3(act, command(dataset_dir, tmp_path / "run", "workers=2"))
    assert status == 2, errors
    assert "a loader worker ended unexpectedly" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert train(dataset_dir, tmp_path / "run", iterations=4, device="cpu", resume=True) == 0


def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(dataset_dir: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails halfway in the same calls."""
    act = "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))"
    arguments = command(dataset_dir, tmp_path / "run", "log#tensorboard=false", "validations=1")
    arguments[arguments.index("100000")] = "6"
    status, errors = at_step_3(act, arguments)
    assert status == 1, errors
    assert "checkpoint not written" in errors
    assert "best model not written" in errors
    assert "the run is not whole: the best model (models/model.pt) and the last checkpoint" in errors
    assert "--resume" in errors
    assert "the run is in" not in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert len(read_rows(tmp_path / "run" / "logs" / "train.jsonl")) == 6
    assert load_tensors(tmp_path / "run" / "models" / "last.pt")["iteration"] == 3
    assert {path.name for path in (tmp_path / "run" / "models").iterdir()} == {"last.pt"}
    assert train(dataset_dir, tmp_path / "run", iterations=6, device="cpu", resume=True) == 0
    assert load_tensors(tmp_path / "run" / "models" / "last.pt")["iteration"] == 6


def test_a_disk_that_is_full_from_the_first_step_on_leaves_no_run_and_says_so(
    dataset_dir: Path, tmp_path: Path
) -> None:
    arguments = command(dataset_dir, tmp_path / "run", "log#tensorboard=false", "validations=1", "workers=0")
    arguments[arguments.index("100000")] = "2"
    limited = (
        "import resource, sys; from rarevox.pipeline.training import train; real = train.run_training;"
        "limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
        "train.run_training = lambda *a: (limit(), real(*a))[1];"
        "from rarevox.pipeline.cli import main; main(sys.argv[1:])"
    )
    done = forked.run(["-c", limited, *arguments[arguments.index("train") :]])
    assert done.returncode == 1, done.stderr
    assert "could not be written; free space and train anew" in done.stderr
    assert "the run is in" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "models" / "model.pt").exists()


def test_a_second_training_into_a_folder_is_refused(dataset_dir: Path, run_dir: Path) -> None:
    with held(run_dir), pytest.raises(RequestError, match="another call is writing into"):
        train(dataset_dir, run_dir, iterations=100, device="cpu", resume=True)
