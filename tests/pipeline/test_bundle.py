from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from rarevox.pipeline.bundle import card_text, require_run, write_bundle
from rarevox.pipeline.compose import CONFIGS, compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.training import validation
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from rarevox.transforms.intensity.n4 import N4Correctedd
from tests import forked

TENSOR = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
REQUIRED = (
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
)


def schema() -> dict[str, object]:
    """What MONAI's metadata schema of 2024-07-25 requires, in our own words (the test must not need the network)."""
    tensor = {
        "type": "object",
        "required": list(TENSOR),
        "properties": {
            "num_channels": {"type": "integer"},
            "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
            "value_range": {"type": "array", "items": {"type": "number"}},
            "is_patch_data": {"type": "boolean"},
            "channel_def": {"type": "object"},
        },
    }
    texts = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")
    objects = ("changelog", "required_packages_version", "eval_metrics")
    properties: dict[str, object] = {name: {"type": "string"} for name in texts} | {
        n: {"type": "object"} for n in objects
    }
    properties["references"] = {"type": "array", "items": {"type": "string"}}
    properties["network_data_format"] = {
        "type": "object",
        "required": ["inputs", "outputs"],
        "properties": {
            name: {"type": "object", "patternProperties": {"^.+$": tensor}} for name in ("inputs", "outputs")
        },
    }
    return {"type": "object", "required": list(REQUIRED), "properties": properties}


@pytest.mark.parametrize(("stage", "kind"), [("train", "train"), ("inference", "infer"), ("evaluate", "infer")])
def test_check_properties_has_no_complaint(run_dir: Path, stage: str, kind: str, monkeypatch) -> None:
    monkeypatch.chdir(run_dir)
    workflow = ConfigWorkflow(
        config_file=f"configs/{stage}.yaml",
        meta_file="configs/metadata.json",
        logging_file=False,
        workflow_type=kind,
        **({"dataset_dir": str(run_dir)} if stage == "inference" else {}),
    )
    if stage == "inference":
        workflow.parser["dataset#data"] = []
    workflow.initialize()
    assert workflow.check_properties() == []


def test_verify_metadata(run_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema()))
    command = ["-m", "monai.bundle", "verify_metadata", "--meta_file", "configs/metadata.json"]
    done = forked.run([*command, "--filepath", str(path)], cwd=run_dir)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads((CONFIGS / "metadata.json").read_text()), schema())


def test_metadata_names_channels_and_classes(run_dir: Path) -> None:
    formats = json.loads((run_dir / "configs" / "metadata.json").read_text())["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == {"0": "noise"}
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "ball", "2": "box"}


def test_the_bundle_trains_and_evaluates_by_itself(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """`monai.bundle run` on the written configurations, in a copy without weights for the training."""
    run = tmp_path / "run"
    (run / "configs").mkdir(parents=True)
    for file in (run_dir / "configs").iterdir():
        (run / "configs" / file.name).write_bytes(file.read_bytes())
    command = ["-m", "monai.bundle", "run", "--config_file"]
    started = [sys.executable, *command, "configs/train.yaml", "--iterations", "4"]  # as a user starts it, not forked
    done = subprocess.run(started, cwd=run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (run / "models" / "model.pt").is_file()
    own, first = (read_rows(folder / "logs" / "train.jsonl")[0]["loss"] for folder in (run, run_dir))
    assert own == first  # the same weights at the start, the same patches
    background = ["--metric_options#include_background", "True"]
    done = forked.run([*command, "configs/evaluate.yaml", "--output_dir", "scores", *background], cwd=run)
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "scores" / "metrics.json").read_text())
    assert np.isfinite(result["mean_dice"])
    assert list(result["structures"]) == ["background", "ball", "box"]


def test_the_bundle_evaluates_raw_scans_corrected_and_corrected_ones_as_they_are(
    dataset_dir: Path, tmp_path: Path
) -> None:
    for name, corrected in (("raw", False), ("corrected", True)):
        content = json.loads((dataset_dir / "dataset.json").read_text())
        content |= {"root": str(Dataset.load(dataset_dir).root), "n4": corrected}
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(json.dumps(content))
    for name in ("raw", "corrected"):
        data = Dataset.load(tmp_path / name)
        write_bundle(tmp_path / "run", compose("train", dataset=data).config, data)
        parser = ConfigParser(yaml.safe_load((tmp_path / "run" / "configs" / "evaluate.yaml").read_text()))
        done = {}
        for evaluated in ("raw", "corrected"):
            parser["dataset_dir"] = str(tmp_path / evaluated)
            parser.parse(reset=True)
            chain = parser.get_parsed_content("preprocessing").transforms
            done[evaluated] = any(isinstance(one, N4Correctedd) for one in chain)
        assert done == {"raw": name == "corrected", "corrected": False}


def test_the_repository_s_own_configuration_is_a_bundle(dataset_dir: Path, tmp_path: Path) -> None:
    """Common and stage files merged by MONAI itself, with the dataset's facts given on the command line."""
    files = [str(CONFIGS / "common.yaml"), str(CONFIGS / "train.yaml")]
    workflow = ConfigWorkflow(
        config_file=files,
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        dataset_dir=str(dataset_dir),
        bundle_root=str(tmp_path),
        structures=["ball", "box"],
        label_values=[0, 1, 2],
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_written_configurations_are_complete_and_readable(run_dir: Path) -> None:
    config = yaml.safe_load((run_dir / "configs" / "inference.yaml").read_text())
    assert config["structures"] == ["ball", "box"]
    assert config["network_def"]["width"] == 4
    assert "optimizer" not in config


@pytest.mark.parametrize("more", [0, 5], ids=["the same model", "another model"])
def test_resuming_keeps_the_scores_of_the_card_as_long_as_they_are_the_models(
    more: int, run_dir: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    assert evaluate(run, dataset_dir, device="cpu") == 0
    files = [run / name for name in ("docs/README.md", "configs/metadata.json")]
    before = [file.read_text() for file in files]
    assert "| ball |" in before[0]
    monkeypatch.setattr(validation, "no_worse", lambda last, best: True)  # the last weights become the model
    assert train(dataset_dir, run, resume=True, device="cpu", iterations=80 + more) == 0
    after = [file.read_text() for file in files]
    if not more:
        assert after == before
        return
    assert "| ball |" not in after[0]
    assert after[0].endswith("## Scores\nNot evaluated yet: `rarevox evaluate RUN DATASET`.\n")
    assert after[0].partition("## Scores")[0] == before[0].partition("## Scores")[0]
    metadata = [json.loads(text) for text in (before[1], after[1])]
    assert metadata[0].pop("eval_metrics")
    assert metadata[1].pop("eval_metrics") == {}
    assert metadata[0] == metadata[1]


@pytest.mark.parametrize(
    "command",
    [
        lambda run, data, out: predict(run, [data], out),
        lambda run, data, out: evaluate(run, data),
        lambda run, data, out: calibrate(run, data),
        lambda run, data, out: tune_post_processing(run, data),
        lambda run, data, out: train(data, run, resume=True),
        lambda run, data, out: train(data, out, start_from=run),
    ],
    ids=["predict", "evaluate", "calibrate", "tune", "resume", "from"],
)
def test_a_run_from_before_the_import_name_is_refused_in_a_sentence(
    command: Callable[[Path, Path, Path], int], run_dir: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    for file in (run / "configs").glob("*.yaml"):
        file.write_text(file.read_text().replace("_target_: rarevox.", "_target_: "))
    with pytest.raises(RequestError, match=r"run was written before version 0\.1\.0.*name .*networks.*; train again"):
        command(run, dataset_dir, tmp_path / "out")


@pytest.mark.parametrize("stage", ["train", "evaluate", "inference"])
def test_a_configuration_of_gigabytes_is_not_read(stage: str, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / f"{stage}.yaml"
    file.touch()
    os.truncate(file, 1 << 33)  # of holes: it takes no place on the disk
    with pytest.raises(RequestError, match=f"{stage}.yaml holds 8589934592 bytes"):
        require_run(tmp_path, stage)


def test_a_run_with_classes_of_one_s_own_is_a_run(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir / "configs", run / "configs")
    text = (run / "configs" / "inference.yaml").read_text()
    (run / "configs" / "inference.yaml").write_text(text.replace("rarevox.networks.HighResNet", "networks.Mine"))
    assert require_run(run, "inference") == run


def test_the_card_has_no_spread_of_one_case(dataset_dir: Path) -> None:
    dice = {"mean": 0.63, "std": float("nan"), "median": 0.63, "n": 1}
    result = {"structures": {"ball": {"dice": dice}}, "conventions": {}, "n_cases": 1}
    config: dict[str, Any] = {key: {"_target_": "a.Class"} for key in ("network_def", "loss")}
    config |= dict.fromkeys(("fold", "batch_size", "seed", "patch_size"), 1)
    card = card_text(config, Dataset.load(dataset_dir), result)
    assert "| ball | 0.630 | – | 0.630 | 1 |" in card
    assert "held out of training (1 case):" in card
