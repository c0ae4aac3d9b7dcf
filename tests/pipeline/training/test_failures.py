"""Trainings that fail: one sentence that says what to do, and what was trained is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.networks import HighResNet
from rarevox.pipeline.cli import main
from rarevox.pipeline.compose import compose
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.failures import explained, resume_command
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL

ERRORS = {
    "cuda": (torch.cuda.OutOfMemoryError, "CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cpu": (RuntimeError, "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": (MemoryError, ""),
}


class Hungry(HighResNet):
    """Takes all memory at the fourth pass while it trains, or at its first while it does not."""

    def __init__(self, *, kind: str = "", while_training: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.kind, self.while_training, self.passes = kind, while_training, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += self.training
        if self.kind and (self.passes == 4 if self.while_training else not self.training):
            error, text = ERRORS[self.kind]
            raise error(text)
        return super().forward(x)


def hungry(folder: Path, kind: str, **options: Any) -> Path:
    path = folder / "hungry.yaml"
    listed = "".join(f", {key}: {value}" for key, value in options.items())
    path.write_text(
        f"network_def: {{ _target_: {__name__}.Hungry, in_channels: '@in_channels', out_channels: '@out_channels', "
        f"width: 4, kind: {kind}{listed} }}\n"
    )
    return path


def status_and_words(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("kind", ERRORS)
def test_memory_that_runs_out_is_one_sentence_and_the_checkpoint_is_kept(
    kind: str, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = [
        part for text in (*SMALL[1:], "checkpoint#minutes=0", "checkpoint#share=1e9") for part in ("--set", text)
    ]
    arguments = ["train", str(dataset_dir), "--output", str(run), "--config", str(hungry(tmp_path, kind)), *settings]
    status, words = status_and_words(capsys, *arguments, "--device", "cpu", "--iterations", "6")
    assert status == 2
    said = [line for line in words.splitlines() if line.startswith("rarevox: ")]
    assert len(said) == 1
    assert "memory ran out in step 4: batch 2 of patches [16, 16, 16] is too much for Hungry here" in said[0]
    assert "--set batch_size=1 or a smaller patch_size" in said[0]
    assert f"rarevox train {dataset_dir.resolve()} --output {run} --resume --trust" in said[0]
    assert "Traceback" not in words
    assert 1 <= load_tensors(run / "models" / "last.pt")["iteration"] <= 3
    path = run / "configs" / "train.yaml"
    path.write_text(path.read_text().replace(f"kind: {kind}", "kind: ''"))  # memory has become free
    assert train(dataset_dir, run, device="cpu", resume=True, trust=True) == 0


def test_memory_that_runs_out_in_a_validation_is_told_apart(dataset_dir: Path, tmp_path: Path) -> None:
    files = [hungry(tmp_path, "cuda", while_training="false")]
    with pytest.raises(RequestError, match=r"in the validation at step [12]: whole scans are too large .*memory_gb"):
        train(dataset_dir, tmp_path / "run", config_files=files, settings=SMALL[1:], iterations=2, device="cpu")


def test_what_the_network_offers_against_it_is_named(tmp_path: Path) -> None:
    """Recomputing, unless it is on or the network knows none; batch 1 cannot be made smaller."""
    config = {"batch_size": 1, "patch_size": [8], "network_def": {"_target_": "rarevox.networks.HighResNet"}}
    options = {"step": 9, "began_at": 0, "validating": False}
    words = str(explained(MemoryError(), tmp_path, config, **options))
    assert "train with a smaller patch_size or --set network_def#checkpointing=true" in words
    assert "batch_size=" not in words
    assert "nothing was trained yet" in words
    for network in (
        {"_target_": "rarevox.networks.HighResNet", "checkpointing": True},
        {"_target_": "rarevox.networks.DeepMedic"},
    ):
        assert "checkpointing" not in str(
            explained(MemoryError(), tmp_path, config | {"network_def": network}, **options)
        )


@pytest.mark.parametrize(("step", "request_"), [(11, True), (10, True), (12, False)])
def test_only_what_fails_in_the_first_step_is_laid_on_the_configuration(
    step: int, request_: bool, tmp_path: Path
) -> None:
    error = TypeError("'int' object is not callable")
    found = explained(error, tmp_path, {}, step=step, began_at=10, validating=False)
    assert isinstance(found, RequestError) is request_
    assert request_ or found is error
    if request_:
        assert "the first step failed: TypeError: 'int' object is not callable" in str(found)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_s_broken_queue_is_told_as_its_end(error: Exception, tmp_path: Path) -> None:
    told = explained(error, tmp_path, {"workers": 2}, step=9, began_at=0, validating=False)
    assert isinstance(told, RequestError)
    assert "a loader worker ended unexpectedly" in str(told)
    assert explained(error, tmp_path, {"workers": 0}, step=9, began_at=0, validating=False) is error


def test_what_is_more_than_data_goes_on_with_trust(tmp_path: Path) -> None:
    config = compose("train").config
    assert resume_command(tmp_path, config) == f"rarevox train dataset --output {tmp_path} --resume"
    own = config | {"augmentation": {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}}
    assert resume_command(tmp_path, own).endswith("--resume --trust")
