"""Evaluation figures reach the trackers of the training, and a tracker that is gone stops nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.track import kept_iteration, scalars


@pytest.fixture
def run(run_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard", "evaluation"))
    return tmp_path / "run"


def _events(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "logs" / "tensorboard"))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_gets_the_means(run: Path, dataset_dir: Path) -> None:
    assert evaluate(run, dataset_dir, device="cpu") == 0
    result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    events, step = _events(run), kept_iteration(run)
    assert 0 < step <= 80
    for name, figures in result["structures"].items():
        for column in ("dice", "surface_dice_1mm"):
            assert events[f"evaluation/test/{name}/{column}"] == [(step, pytest.approx(figures[column]["mean"]))]
        ece = result["calibration"]["structures"][name]["near"]["ece"]
        assert events[f"evaluation/test/{name}/ece_near"] == [(step, pytest.approx(ece))]
    assert events["evaluation/test/mean_dice"] == [(step, pytest.approx(result["mean_dice"]))]


def test_nothing_is_tracked_where_training_had_it_off_or_the_results_go_elsewhere(
    run: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    assert evaluate(run, dataset_dir, output=tmp_path / "elsewhere", device="cpu") == 0
    file = run / "configs" / "train.yaml"
    config = yaml.safe_load(file.read_text())
    config["log"]["tensorboard"] = False
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    assert evaluate(run, dataset_dir, device="cpu") == 0
    assert not (run / "logs" / "tensorboard").exists()


def test_mlflow_gets_the_means_in_the_run_of_the_training(
    run: Path, dataset_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            self.uri = tracking_uri

        def log_metric(self, run_id: str, key: str, value: float, *, step: int) -> None:
            logged.append((self.uri, run_id, key, value, step))

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    (run / "logs" / "mlflow.json").write_text(json.dumps({"tracking_uri": "sqlite:///x.db", "run_id": "abc"}))
    assert evaluate(run, dataset_dir, device="cpu") == 0
    result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    expected = scalars("test", result)
    assert {key: value for _, _, key, value, _ in logged} == pytest.approx(expected)
    assert {(uri, run_id, step) for uri, run_id, _, _, step in logged} == {
        ("sqlite:///x.db", "abc", kept_iteration(run))
    }


def test_the_real_mlflow_takes_them(run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        tracked = client.create_run(client.create_experiment("rarevox"))
    except Exception as error:  # a slim installation has no database store
        pytest.skip(f"no local store: {error}")
    (run / "logs" / "mlflow.json").write_text(json.dumps({"tracking_uri": uri, "run_id": tracked.info.run_id}))
    assert evaluate(run, dataset_dir, device="cpu") == 0
    result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert client.get_run(tracked.info.run_id).data.metrics == pytest.approx(scalars("test", result))


@pytest.mark.parametrize("stated", ['{"tracking_uri": "http://localhost:1"}', "torn", "{}"])
def test_a_tracker_that_is_gone_is_told_and_stops_nothing(
    run: Path, dataset_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stated: str
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # not installed
    (run / "logs" / "mlflow.json").write_text(stated)
    assert evaluate(run, dataset_dir, device="cpu") == 0
    assert "not tracked by MLflow" in capsys.readouterr().err
    assert "evaluation/test/mean_dice" in _events(run)


def test_names_that_mlflow_does_not_take_are_spelt_otherwise() -> None:
    result = {"mean_dice": float("nan"), "structures": {"grey/white+é": {"dice": {"mean": 1.0}}}}
    assert scalars("validation", result) == {"evaluation/validation/grey_white__/dice": 1.0}
