"""`rarevox calibrate`: the temperature reaches the run, changes probabilities and no label."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from rarevox.pipeline.cli import cli
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation import out_of_fold
from rarevox.pipeline.evaluation.calibrate import RESULT_FILE, calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.evaluation.tune_threshold import tune_threshold
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter


@pytest.fixture(scope="module")
def loud_run(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with its last layer's weights times six: the same labels, far too certain."""
    run = tmp_path_factory.mktemp("loud") / "run"
    shutil.copytree(run_dir, run)
    path = run / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    last = [key for key in state if state[key].ndim == 5][-1].rsplit(".", 1)[0]
    for key in (f"{last}.weight", f"{last}.bias"):
        if key in state:
            state[key] *= 6
    torch.save(state, path)
    return run


def _labels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("*_seg.nii.gz"))]


def test_the_temperature_reaches_every_configuration_and_no_label_changes(
    loud_run: Path, dataset_dir: Path, task_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = [task_dir / "imagesTr" / "case_00.nii.gz"]
    options: dict[str, Any] = {"section": "validation", "device": "cpu"}
    assert evaluate(loud_run, dataset_dir, output=tmp_path / "before", **options) == 0
    assert predict(loud_run, scan, tmp_path / "sharp", device="cpu", entropy=True) == 0
    arguments = ["calibrate", str(loud_run), str(dataset_dir), "--device", "cpu"]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert (done.exception, done.return_value) == (None, 0)
    stored = json.loads((loud_run / "evaluation" / RESULT_FILE).read_text())
    temperature = stored["temperature"]
    assert temperature > 1.5
    assert stored["nll"]["after"] < stored["nll"]["before"]
    assert stored["context"]["section"] == "validation"
    assert stored["n_cases"] == len(Dataset.load(dataset_dir).section("validation"))
    assert "expected calibration error" in done.output and "replaced" not in done.output
    for stage in ("train", "evaluate", "inference"):
        config = yaml.safe_load((loud_run / "configs" / f"{stage}.yaml").read_text())
        assert config["temperature"] == temperature
        assert config["inferer"]["temperature"] == "@temperature"
    assert evaluate(loud_run, dataset_dir, output=tmp_path / "after", **options) == 0
    before, after = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("before", "after"))
    assert after["cases"] == before["cases"]
    for one, other in zip(*(_labels(tmp_path / n / "predictions") for n in ("before", "after")), strict=True):
        assert np.array_equal(one, other)
    assert after["calibration"]["temperature"] == temperature
    brier = [
        sum(s["near"]["brier"] * s["near"]["voxels"] for s in result["calibration"]["structures"].values())
        for result in (before, after)
    ]
    assert brier[1] < brier[0]
    assert predict(loud_run, scan, tmp_path / "soft", device="cpu", entropy=True) == 0
    assert np.array_equal(_labels(tmp_path / "sharp")[0], _labels(tmp_path / "soft")[0])
    sharp, soft = (nib.load(tmp_path / n / "case_00_entropy.nii.gz").get_fdata().mean() for n in ("sharp", "soft"))
    assert soft > sharp
    # Fitted anew, from temperature 1 and not from the last one: the same.
    assert calibrate(loud_run, dataset_dir, device="cpu") == 0
    assert f"has temperature {temperature}, replaced by what is chosen now" in capsys.readouterr().err
    assert json.loads((loud_run / "evaluation" / RESULT_FILE).read_text())["temperature"] == temperature


def test_runs_of_an_earlier_version_get_a_temperature(loud_run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(loud_run, run)
    for stage in ("train", "evaluate", "inference"):
        path = run / "configs" / f"{stage}.yaml"
        config = yaml.safe_load(path.read_text())
        config["inferer"].pop("temperature")
        config.pop("temperature")
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert calibrate(run, dataset_dir, device="cpu") == 0
    config = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    assert config["temperature"] > 1
    assert config["inferer"]["temperature"] == "@temperature"


def test_a_validation_case_that_cannot_be_read_is_listed_and_the_rest_decides(
    loud_run: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(loud_run, run)
    data = json.loads((dataset_dir / "dataset.json").read_text())
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    broken = next(case for case in data["training"] if case["fold"] == 0)
    broken["image"] = str(tmp_path / "broken.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    assert calibrate(run, tmp_path, device="cpu") == 1
    stored = json.loads((run / "evaluation" / RESULT_FILE).read_text())
    assert list(stored["failed"]) == [broken["case"]]
    assert f"failed {broken['case']}" in capsys.readouterr().err
    data["training"] = [case for case in data["training"] if case["fold"] != 0 or case is broken]
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(RequestError, match="no validation case"):
        calibrate(run, tmp_path, device="cpu")


def test_no_run_no_calibration(dataset_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run"):
        calibrate(tmp_path, dataset_dir)


@pytest.mark.parametrize("stage", [calibrate, tune_post_processing, tune_threshold])
def test_raw_scans_are_corrected_for_a_run_that_learnt_from_corrected_ones(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Callable[..., int]
) -> None:
    run, module = tmp_path / "run", sys.modules[calibrate.__module__] if stage is calibrate else out_of_fold
    shutil.copytree(run_dir, run)
    path = run / "configs" / "inference.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"n4": True}, sort_keys=False))
    asked = []

    class Stop(Exception):
        pass

    def segmenter(*arguments: Any, **options: Any) -> None:
        asked.append(Segmenter(*arguments, **options).config["n4"])
        raise Stop

    monkeypatch.setattr(module, "Segmenter", segmenter)
    with pytest.raises(Stop):
        stage(run, dataset_dir, device="cpu")
    assert asked == [True]
