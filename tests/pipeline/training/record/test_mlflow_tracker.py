from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint
from rarevox.pipeline.training.record import mlflow_tracker as module
from rarevox.pipeline.training.record.mlflow_tracker import MlflowTracker, mlflow_tracker, store_uri
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL


def test_a_store_is_the_run_a_folder_or_a_uri(tmp_path: Path) -> None:
    assert store_uri("local", tmp_path / "logs") == f"sqlite:///{tmp_path}/logs/mlflow.db"
    assert store_uri(str(tmp_path / "all"), tmp_path) == f"sqlite:///{tmp_path}/all/mlflow.db"
    assert store_uri("http://here:5000", tmp_path) == "http://here:5000"
    assert mlflow_tracker(None, folder=tmp_path) is None


def test_a_missing_package_is_said_before_data_is_read(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install mlflow-skinny"):
        train(dataset_dir, tmp_path / "run", settings=["mlflow=local"], iterations=1, device="cpu")


def test_a_resumed_training_goes_on_in_the_same_mlflow_run(dataset_dir: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    run = tmp_path / "run"
    settings = [*SMALL, f"mlflow={tmp_path / 'store'}", "validations=1"]
    assert train(dataset_dir, run, settings=settings, iterations=3, device="cpu") == 0
    stated = json.loads((run / "logs" / "mlflow.json").read_text())
    assert set(stated) == {"tracking_uri", "run_id", "experiment"}
    assert train(dataset_dir, run, iterations=5, device="cpu", resume=True) == 0
    assert json.loads((run / "logs" / "mlflow.json").read_text()) == stated
    client = mlflow.MlflowClient(tracking_uri=stated["tracking_uri"])
    found = client.get_run(stated["run_id"])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["network"] == "HighResNet"
    history = {metric.step: metric.value for metric in client.get_metric_history(stated["run_id"], "train/loss")}
    rows = read_rows(run / "logs" / "train.jsonl")
    assert history == {row["iteration"]: pytest.approx(row["loss"]) for row in rows}
    assert {"validation/mean_dice", "validation/dice_ball"} <= set(found.data.metrics)


def test_a_store_that_is_gone_is_told_and_metrics_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    tracker = MlflowTracker("local", folder=tmp_path / "run" / "logs", every_seconds=0)
    tracker.open(0)
    client, sent = tracker._client, []

    class Gone:
        def log_batch(self, run: str, metrics: list[object]) -> None:
            raise ConnectionError("no route")

    tracker._client = Gone()
    tracker.add({"train/loss": 0.5, "validation/dice_white matter (left)": 0.25}, 1)
    with pytest.raises(OSError, match="no route"):
        tracker.flush()
    tracker._client = client
    tracker.close("KILLED")
    found = client.get_run(tracker._run)
    sent = found.data.metrics
    assert sent == {"train/loss": 0.5, "validation/dice_white matter _left_": 0.25}
    assert found.info.status == "KILLED"


def test_a_store_that_is_gone_at_the_end_is_no_error_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log tells and passes over is an OSError, whatever the client raises."""

    class Gone:
        def set_terminated(self, run: str, status: str) -> None:
            raise ValueError("no such run")

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    tracker = MlflowTracker("local", folder=tmp_path)
    tracker._client = Gone()
    with pytest.raises(OSError, match="no such run"):
        tracker.close("FINISHED")


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    tracker = MlflowTracker("nonsense://x", folder=tmp_path / "logs")
    with pytest.raises(RequestError, match="MLflow at nonsense://x cannot be used"):
        tracker.open(0)


def test_steps_that_a_killed_run_takes_again_are_there_once(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at step 6 after its checkpoint at step 4, having sent all six: every step, and no step twice."""
    mlflow = pytest.importorskip("mlflow")
    run, save = tmp_path / "run", RunCheckpoint.save

    class Killed(BaseException):
        pass

    def die(self: RunCheckpoint, engine: Any) -> None:
        if engine.state.iteration == 4:
            save(self, engine)
        elif engine.state.iteration == 6:
            raise Killed

    settings = [*SMALL, "mlflow=local", "mlflow_tracker#every_seconds=0", "epoch_length=1", "validations=1"]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_now_and_then", die)
        with pytest.raises(Killed):
            train(dataset_dir, run, settings=settings, iterations=8, device="cpu")
    for number, handler in before.items():
        signal.signal(number, handler)
    stated = json.loads((run / "logs" / "mlflow.json").read_text())
    client = mlflow.MlflowClient(tracking_uri=stated["tracking_uri"])
    # an epoch's flush comes before the step at which the kill came is over, or after it
    assert len(client.get_metric_history(stated["run_id"], "train/loss")) in (5, 6)
    assert train(dataset_dir, run, device="cpu", resume=True) == 0
    history = client.get_metric_history(stated["run_id"], "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, 9))
    rows = read_rows(run / "logs" / "train.jsonl")
    assert {metric.step: metric.value for metric in history} == {r["iteration"]: pytest.approx(r["loss"]) for r in rows}


def test_all_is_sent_before_a_checkpoint(tmp_path: Path) -> None:
    """What comes after it may be lost to a kill, and is taken again; what comes before is not."""
    pytest.importorskip("mlflow")
    tracker = MlflowTracker("local", folder=tmp_path / "run" / "logs", every_seconds=1000)
    tracker.open(0)
    tracker.add({"train/loss": 0.5}, 1)
    tracker.flush()
    assert tracker._client.get_run(tracker._run).data.metrics == {}
    tracker.flush(True)
    assert tracker._client.get_run(tracker._run).data.metrics == {"train/loss": 0.5}
