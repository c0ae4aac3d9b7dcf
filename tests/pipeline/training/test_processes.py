"""Two processes over gloo: the same training as one with the double batch.

``torchrun`` itself starts one of these trainings; the others are forks in the environment that it makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.record.run_log import read_rows
from tests import forked

STEPS = 8
COMMON = (
    "network_def#width=4",
    "network_def#norm=instance",
    "patch_size=[16,16,16]",
    "epoch_length=5",
    "precision#name=float32",
    "augmentation#transforms=[]",
)
CONFIG = """
optimizer: { _target_: torch.optim.SGD, params: "$@network.parameters()", lr: 0.05, momentum: 0.9 }
ema_decay: 0.9
"""


def command(dataset: Path, run: Path, batch: int, *extra: str) -> list[str]:
    config = run.parent / "config.yaml"
    config.write_text(CONFIG)
    settings = [part for setting in (*COMMON, f"batch_size={batch}") for part in ("--set", setting)]
    fixed = ["train", str(dataset), "--output", str(run), "--device", "cpu"]
    return [*fixed, *extra] if "--resume" in extra else [*fixed, "--config", str(config), *settings, *extra]


TOOL = str(Path(__file__).with_name("two_processes.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(processes: int, arguments: Sequence[str], signal_at: int = 0) -> subprocess.CompletedProcess[str]:
    """Fresh processes by ``torchrun`` itself."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    line = [sys.executable, *several, TOOL, str(signal_at), *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)


def start(processes: int, arguments: Sequence[str]) -> tuple[int, str]:
    """Forks in the environment that ``torchrun`` makes, which meet at a store here: worst status, standard error."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sizes = {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    elastic = {"TORCHELASTIC_RUN_ID": "test", **common, **sizes} if processes > 1 else {}
    ranks = [{**ENVIRONMENT, **elastic, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(processes)]
    forks = [forked.Forked([TOOL, "0", *arguments], env=environment) for environment in ranks]
    done = [fork.wait(timeout=600) for fork in forks]
    return max(abs(one.returncode) for one in done), "".join(one.stderr for one in done)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "logs" / "train.jsonl")]


@pytest.fixture(scope="module")
def pair(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with batches of 4 in ``one``, two with batches of 2 in ``two``."""
    folder = tmp_path_factory.mktemp("pair")
    for name, number, batch in (("one", 1, 4), ("two", 2, 2)):
        status, errors = start(number, command(dataset_dir, folder / name, batch, "--iterations", str(STEPS)))
        assert status == 0, errors
    return folder


def test_two_processes_train_as_one_with_the_double_batch(pair: Path) -> None:
    """Losses of every step, all weights, their average, and the counts of the patches."""
    one, two = (losses(pair / name) for name in ("one", "two"))
    assert len(two) == STEPS
    assert one[0] != pytest.approx(one[-1], rel=1e-3)
    assert two == pytest.approx(one, rel=1e-5)
    single, double = (load_tensors(pair / name / "models" / "last.pt") for name in ("one", "two"))
    for part in ("network", "ema"):
        a, b = (torch.cat([tensor.double().ravel() for tensor in state[part].values()]) for state in (single, double))
        assert float((a - b).norm() / a.norm()) < 1e-4, part
    counts = [json.loads((pair / name / "logs" / "patches.json").read_text()) for name in ("one", "two")]
    assert counts[0] == counts[1]
    assert len(double["random"]) == 2


def test_validations_share_the_cases_and_agree(pair: Path) -> None:
    rows = [read_rows(pair / name / "logs" / "validation.jsonl")[-1] for name in ("one", "two")]
    assert rows[0]["iteration"] == rows[1]["iteration"] == STEPS
    assert rows[1]["mean_dice"] == pytest.approx(rows[0]["mean_dice"], abs=0.02)


def test_scans_are_mined_by_all_processes_together(dataset_dir: Path, tmp_path: Path) -> None:
    """A scan each time, which one of them predicts; both have its patches then."""
    mining = ("background_share=0.5", "hard_share=0.5", "hard_scans=1", "patch_size=[8,8,8]")
    mining += ("validations=2", "validation#share=1e9")
    settings = [part for setting in mining for part in ("--set", setting)]
    status, errors = start(2, command(dataset_dir, tmp_path / "run", 2, "--iterations", "4", *settings))
    assert status == 0, errors
    mined = read_rows(tmp_path / "run" / "logs" / "mining.jsonl")
    assert [(row["iteration"], row["scans"]) for row in mined] == [(2, 1)]
    state = load_tensors(tmp_path / "run" / "models" / "last.pt")
    assert state["scan_mining"]["turn"] == 1 and len(state["hard_patches"]["scores"]) == 2


def test_a_signal_to_one_ends_all_and_the_run_goes_on_exactly(dataset_dir: Path, pair: Path) -> None:
    run = pair / "parts"
    stopped = torchrun(2, command(dataset_dir, run, 2, "--iterations", str(STEPS)), signal_at=3)
    assert stopped.returncode != 0
    assert "--resume" in stopped.stderr
    assert "exitcode  : 143" in stopped.stderr
    assert load_tensors(run / "models" / "last.pt")["iteration"] == 3
    status, errors = start(2, command(dataset_dir, run, 2, "--resume"))
    assert status == 0, errors
    assert losses(run) == losses(pair / "two")


def test_a_wrong_request_is_said_once(dataset_dir: Path, tmp_path: Path) -> None:
    status, errors = start(2, command(dataset_dir, tmp_path / "run", 2, "--set", "optimizer#lrr=1"))
    assert status == 2
    assert errors.count("rarevox: no configuration key") == 1


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.distributed, "is_torchelastic_launched", lambda: True)
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match="one device for several"):
        processes.start("cuda:0")
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RequestError, match="2 processes on a machine with 1 CUDA"):
        processes.start("cuda")


@pytest.mark.slow
def test_gradients_that_are_taken_by_term_are_those_of_all_processes(dataset_dir: Path, tmp_path: Path) -> None:
    """Projected gradients and the log of the terms' gradients, which pass DistributedDataParallel's hooks by."""
    extra = ("--loss", "dice_ce", "--config", "gradients", "--config", "projected_gradients", "--iterations", "3")
    for name, number, batch in (("one", 1, 4), ("two", 2, 2)):
        status, said = start(
            number, command(dataset_dir, tmp_path / name, batch, *extra, "--set", "gradient_log#every=1")
        )
        assert status == 0, said
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = (read_rows(tmp_path / name / "logs" / "gradients.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert b["norms"] == pytest.approx(a["norms"], rel=1e-3)
        assert b["cosine"] == pytest.approx(a["cosine"], abs=1e-3)
