"""A whole `train` on a device, in every precision and kind of step: it learns, is a run, and can be taken up."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train

pytestmark = pytest.mark.gpu

SMALL = ("network_def#width=4", "patch_size=[16,16,16]", "batch_size=2", "epoch_length=5", "validation_cases=1")
STEPS = 12
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "float32": {"settings": ["precision#name=float32"]},
    "tf32": {"settings": ["precision#name=tf32"]},
    "bfloat16": {"settings": ["precision#name=bfloat16"]},
    "float16": {"settings": ["precision#name=float16"]},
    "fastest algorithms": {"settings": ["deterministic=false"]},
    "AdamW": {"config_files": ["adamw"]},
    "average of the weights": {"config_files": ["ema"]},
    "cases on the device": {"config_files": ["device"]},
    "loss on a crop": {"settings": ["loss_margin=2"]},
    "steps read at once": {"settings": ["step#late=false"]},
    "no graphs": {"settings": ["step#cuda_graphs=false"]},
    "scans by graphs too": {"settings": ["cuda_graphs=true", "validations=4", "validation_cases=2"]},
    "DeepMedic": {"network": "deepmedic", "settings": ["patch_size=[51,51,51]"]},
    "U-Net": {"network": "unet"},
    "cosine schedule": {"loss": "dice_ce_cosine"},
    "two optimisers": {"loss": "two_optimizers"},
    "projected gradients": {"loss": "dice_ce", "config_files": ["projected_gradients"]},
    "components": {"loss": "component_dice_ce"},
    "hardest voxels": {"loss": "dice_topk"},
    "focal": {"loss": "dice_focal"},
}
ON_A_DEVICE_ALONE = ("tf32", "float16")
NOT_HIGHRESNET = ("DeepMedic", "U-Net")


def options(way: str) -> dict[str, Any]:
    chosen = dict(WAYS[way])
    small = SMALL[1:] if way in NOT_HIGHRESNET else SMALL
    return {**chosen, "settings": [*small, *chosen.get("settings", [])]}


def losses_of(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "logs" / "train.jsonl") if "loss" in row]


@pytest.mark.parametrize("way", WAYS)
def test_a_training_learns_and_its_run_predicts(on, way, dataset_dir, task_dir, tmp_path, capsys) -> None:
    if on == "cpu" and way in ON_A_DEVICE_ALONE:
        pytest.skip("a precision of CUDA devices")
    run = tmp_path / "run"
    assert train(dataset_dir, run, iterations=STEPS, device=on, **options(way)) == 0
    losses = losses_of(run)
    assert losses and all(map(math.isfinite, losses)), losses
    state = load_tensors(run / "models" / "model.pt")
    assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())
    scans = sorted((task_dir / "imagesTr").iterdir())[:2]
    assert predict(run, scans, tmp_path / "out", device=on) == 0
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


@pytest.mark.parametrize("way", ["default", "average of the weights", "cases on the device"])
def test_a_run_is_taken_up(on, way, dataset_dir, tmp_path) -> None:
    """The same draws in the same order: what an uninterrupted run logs, within what its precision rounds."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    chosen = options(way)
    chosen["settings"] = [*chosen["settings"], "precision#name=float32"]
    assert train(dataset_dir, whole, iterations=10, device=on, **chosen) == 0
    assert train(dataset_dir, parted, iterations=5, device=on, **chosen) == 0
    assert train(dataset_dir, parted, iterations=10, device=on, resume=True) == 0
    steps = [row["iteration"] for row in read_rows(parted / "logs" / "train.jsonl") if "loss" in row]
    assert steps[-1] == 10 and len(losses_of(parted)) == len(losses_of(whole))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_device(dataset_dir, tmp_path) -> None:
    run = tmp_path / "run"
    assert train(dataset_dir, run, iterations=4, device="cuda:1", **options("default")) == 0
    assert all(map(math.isfinite, losses_of(run)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_processes_train_one_network(dataset_dir, tmp_path) -> None:
    run = tmp_path / "run"
    settings = [text for setting in SMALL for text in ("--set", setting)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "rarevox.pipeline.cli", "train", str(dataset_dir), "--output", str(run), *settings]
    done = subprocess.run([*command, "--iterations", "10"], env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert all(map(math.isfinite, losses_of(run)))
