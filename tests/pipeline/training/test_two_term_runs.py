"""Schedules, gradient logs and steps of two terms through `train`: runs that are bundles and can be taken up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigWorkflow

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train

TINY = ("network_def#width=2", "patch_size=[16,16,16]", "batch_size=1", "epoch_length=2", "validation_cases=1")
WAYS: dict[str, dict[str, Any]] = {
    "cosine, measured": {"loss": "dice_ce_cosine", "config_files": ["gradients"], "every": 2},
    "linear, projected": {"loss": "dice_ce_linear", "config_files": ["projected_gradients", "gradients"], "every": 3},
    "two optimisers": {"loss": "two_optimizers"},
}


def run(dataset: Path, folder: Path, way: str, **options: Any) -> int:
    """Six steps in one of the ways."""
    arguments = dict(WAYS[way])
    every = arguments.pop("every", None)
    settings = [*TINY, *([f"gradient_log#every={every}"] if every else [])]
    return train(dataset, folder, settings=settings, iterations=6, device="cpu", **arguments, **options)


@pytest.fixture(scope="module")
def runs(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole run of each way."""
    folders = {way: tmp_path_factory.mktemp("ways") / "run" for way in WAYS}
    for way, folder in folders.items():
        assert run(dataset_dir, folder, way) == 0
    return folders


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_goes_on_exactly(
    runs: dict[str, Path], way: str, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped hard after the checkpoint at step 3, then taken up: the same losses, shares and gradients."""

    class Stopped(Exception):
        pass

    def stop(self: RunCheckpoint, engine: Any) -> None:
        if engine.state.iteration == 3:
            self.save(engine)
            raise Stopped

    monkeypatch.setattr(RunCheckpoint, "_now_and_then", stop)
    with pytest.raises(Stopped):
        run(dataset_dir, tmp_path / "run", way)
    monkeypatch.undo()
    assert train(dataset_dir, tmp_path / "run", iterations=6, device="cpu", resume=True) == 0
    for name in ("train", "gradients"):
        whole, parts = (read_rows(folder / "logs" / f"{name}.jsonl") for folder in (runs[way], tmp_path / "run"))
        assert [{**row, "seconds": 0} for row in parts] == [{**row, "seconds": 0} for row in whole], name
    assert [row["iteration"] for row in read_rows(tmp_path / "run" / "logs" / "train.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("way", WAYS)
def test_the_run_is_a_bundle(runs: dict[str, Path], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs[way])
    workflow = ConfigWorkflow(
        config_file="configs/train.yaml",
        meta_file="configs/metadata.json",
        logging_file=False,
        workflow_type="train",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    for stage in ("evaluate", "inference"):
        config = yaml.safe_load((runs[way] / "configs" / f"{stage}.yaml").read_text())
        assert not {"step", "loss_schedule", "gradient_log", "optimizer"} & set(config)


def test_the_rows_say_share_norms_and_cosine(runs: dict[str, Path]) -> None:
    rows = read_rows(runs["cosine, measured"] / "logs" / "gradients.jsonl")
    assert [row["iteration"] for row in rows] == [1, 3, 5]
    # Steps 1, 3, 5 begin at progress 0, 1/3, 2/3: α = 1 − (1 − cos πt) / 2
    assert [row["alpha"] for row in rows] == pytest.approx([1.0, 0.75, 0.25])
    for row in rows:
        assert set(row["norms"]) == set(row["terms"]) == {"dice", "cross_entropy"}
        assert all(value > 0 for value in row["norms"].values())
        assert -1 <= row["cosine"] <= 1
    logged = {row["iteration"]: row["loss"] for row in read_rows(runs["cosine, measured"] / "logs" / "train.jsonl")}
    for row in rows:
        dice, entropy, alpha = row["terms"]["dice"], row["terms"]["cross_entropy"], row["alpha"]
        assert logged[row["iteration"]] == pytest.approx(2 * (alpha * dice + (1 - alpha) * entropy), rel=1e-5)


def test_tensorboard_has_them_too(runs: dict[str, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs["cosine, measured"] / "logs" / "tensorboard"))
    events.Reload()
    rows = read_rows(runs["cosine, measured"] / "logs" / "gradients.jsonl")
    shown = {scalar.step: scalar.value for scalar in events.Scalars("gradients/cosine")}
    assert shown == {row["iteration"]: pytest.approx(row["cosine"]) for row in rows}
    assert {"gradients/norm_dice", "gradients/norm_cross_entropy", "gradients/alpha"} <= set(events.Tags()["scalars"])


def test_both_optimisers_have_stepped_and_are_saved(runs: dict[str, Path]) -> None:
    content = load_tensors(runs["two optimisers"] / "models" / "last.pt")
    for state in (content["optimizer"], content["step"]["second_optimizer"]):
        assert {entry["step"] for entry in state["state"].values() if "step" in entry} == {3}
        assert any(entry["momentum_buffer"].any() for entry in state["state"].values() if "step" not in entry)
    rates = [state["param_groups"][0]["lr"] for state in (content["optimizer"], content["step"]["second_optimizer"])]
    assert rates[1] == pytest.approx(0.1 * rates[0])
    assert load_tensors(runs["cosine, measured"] / "models" / "last.pt")["loss_schedule"] == {
        "alpha": pytest.approx((1 + math.cos(math.pi * 5 / 6)) / 2)
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "ce", "config_files": ["gradients"]}, "gradient_log needs a loss of two terms"),
        ({"loss": "gdl", "config_files": ["projected_gradients"]}, "projection of gradients needs a loss of two terms"),
        ({"loss": "tversky", "settings": ["loss_schedule#shape=linear"]}, "loss_schedule needs a loss of two terms"),
        ({"settings": ["loss_schedule#shape=sine"]}, "did you mean 'cosine'|valid names|Valid names"),
        ({"loss": "dice_ce_linear", "settings": ["loss_schedule#end=1.5"]}, "the share 1.5 at progress 1"),
        ({"loss": "two_optimizers", "settings": ["step#clip_nrom=1"]}, "clip_nrom"),
        ({"settings": ["gradient_log#every=-5"]}, "every is -5"),
    ],
)
def test_a_wrong_request_is_refused_before_data_is_read(
    dataset_dir: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        train(dataset_dir, tmp_path / "run", **{"iterations": 1, "device": "cpu", **arguments})
    assert not (tmp_path / "run" / "configs").exists()


def test_the_component_loss_gets_its_regions(dataset_dir: Path, tmp_path: Path) -> None:
    """Training labels carry the regions by themselves, validation does without, and a structure's share stays one."""
    folder = tmp_path / "run"
    assert train(dataset_dir, folder, loss="component_dice_ce", settings=TINY, iterations=3, device="cpu") == 0
    rows = read_rows(folder / "logs" / "train.jsonl")
    assert len(rows) == 3 and all(math.isfinite(row["loss"]) for row in rows)
    patches = read_json(folder / "logs" / "patches.json")
    assert 0 < patches["foreground_share"]["mean"] < 0.5  # regions fill the patch: counted, they would make it 1
