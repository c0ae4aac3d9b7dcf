from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.console import PlainLines
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training import validation
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from tests import forked
from tests.conftest import SMALL


def test_a_run_is_a_bundle(run_dir: Path) -> None:
    names = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    expected = {
        f"configs/{name}" for name in ("train.yaml", "evaluate.yaml", "inference.yaml", "metadata.json", "logging.conf")
    }
    assert expected | {"LICENSE", "docs/README.md", "models/model.pt", "models/last.pt"} <= names
    assert any(name.startswith("logs/tensorboard/events") for name in names)
    state = torch.load(run_dir / "models" / "model.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_it_learns(run_dir: Path) -> None:
    rows = read_rows(run_dir / "logs" / "train.jsonl")
    assert [row["iteration"] for row in rows] == list(range(1, 81))
    first, last = (sum(row["loss"] for row in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last < 0.6 * first
    validations = read_rows(run_dir / "logs" / "validation.jsonl")
    assert validations[-1]["iteration"] == 80
    assert max(row["mean_dice"] for row in validations) > 0.3
    assert set(validations[-1]["dice"]) == {"ball", "box"}


def test_tensorboard_has_every_step_and_the_last_validation(run_dir: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "logs" / "tensorboard"))
    events.Reload()
    rows = read_rows(run_dir / "logs" / "train.jsonl")
    assert {scalar.step: scalar.value for scalar in events.Scalars("train/loss")} == {
        row["iteration"]: pytest.approx(row["loss"]) for row in rows
    }
    validations = read_rows(run_dir / "logs" / "validation.jsonl")
    assert [scalar.step for scalar in events.Scalars("validation/mean_dice")] == [v["iteration"] for v in validations]
    assert len(list((run_dir / "logs" / "tensorboard").iterdir())) == 1


def test_the_learning_rate_ends_at_the_end(run_dir: Path) -> None:
    """Before the last of 80 steps progress is 79/80; with 2 % of warm-up the factor is (1 − (79/80 − .02)/.98)^.9."""
    rows = read_rows(run_dir / "logs" / "train.jsonl")
    assert rows[-1]["lr"] == pytest.approx(0.01 * (1 - (79 / 80 - 0.02) / 0.98) ** 0.9)


def test_a_resumed_run_keeps_its_fold_and_its_data(
    dataset_dir: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another fold or other data are refused; the same dataset in another place is followed."""
    run, moved, others = (tmp_path / name for name in ("run", "moved", "others"))
    shutil.copytree(run_dir, run)
    with pytest.raises(RequestError, match="is a run of fold 0, not 1"):
        train(dataset_dir, run, resume=True, fold=1, device="cpu")
    for folder in (moved, others):
        shutil.copytree(dataset_dir, folder)
    content = json.loads((others / "dataset.json").read_text())
    (others / "dataset.json").write_text(json.dumps(content | {"fingerprint": "0" * 64}))
    with pytest.raises(RequestError, match="others holds other data"):
        train(others, run, resume=True, device="cpu")
    assert train(moved, run, resume=True, fold=0, device="cpu", iterations=80) == 0
    assert "nothing was to be done: the budget was used up by the 80 steps before" in capsys.readouterr().err
    assert yaml.safe_load((run / "configs" / "train.yaml").read_text())["dataset_dir"] == str(moved.resolve())


def test_iterations_win_over_the_minutes_of_a_file(dataset_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("minutes: 60\n")
    files = [tmp_path / "mine.yaml"]
    assert train(dataset_dir, tmp_path / "run", config_files=files, settings=SMALL, iterations=1, device="cpu") == 0
    assert len(read_rows(tmp_path / "run" / "logs" / "train.jsonl")) == 1


def test_the_device_is_the_configuration_s_unless_another_is_named(dataset_dir: Path, tmp_path: Path) -> None:
    """Of a resumed run that on which it was trained: the losses go on to the bit there alone."""
    (tmp_path / "mine.yaml").write_text("device#name: cpu\n")
    run, files = tmp_path / "run", [tmp_path / "mine.yaml"]
    assert train(dataset_dir, run, config_files=files, settings=SMALL, iterations=1) == 0
    for more in ({}, {"device": "auto"}):
        assert train(dataset_dir, run, resume=True, iterations=2, **more) == 0  # type: ignore[arg-type]
        assert yaml.safe_load((run / "configs" / "train.yaml").read_text())["device"]["name"] == "cpu"


def test_a_run_without_a_step_says_so(dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (*SMALL, "log#tensorboard=false")
    assert train(dataset_dir, tmp_path / "run", settings=settings, minutes=1e-4, device="cpu") == 1
    assert "before the first step" in " ".join(capsys.readouterr().err.split())


def test_resuming_goes_on_exactly_as_if_nothing_had_happened(dataset_dir: Path, tmp_path: Path) -> None:
    """12 steps in one go, and 12 whose process is killed after the checkpoint at step 6: the same losses exactly."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(dataset_dir, whole, settings=SMALL, iterations=12, device="cpu") == 0
    stop = f"""
import os, signal
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint
from rarevox.pipeline.training.train import train
def die(self, engine):
    if engine.state.iteration == 6:
        self.save(engine)
        os.kill(os.getpid(), signal.SIGKILL)
RunCheckpoint._now_and_then = die
train({str(dataset_dir)!r}, {str(parts)!r}, settings={SMALL!r}, iterations=12, device="cpu")
"""
    died = forked.run(["-c", stop])
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert train(dataset_dir, parts, iterations=12, device="cpu", resume=True) == 0
    expected = {row["iteration"]: row["loss"] for row in read_rows(whole / "logs" / "train.jsonl")}
    found = {row["iteration"]: row["loss"] for row in read_rows(parts / "logs" / "train.jsonl")}
    assert {n: found[n] for n in range(7, 13)} == {n: expected[n] for n in range(7, 13)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "highresent"}, "did you mean 'highresnet'"),
        ({"loss": "gdlce"}, "did you mean 'gdl_ce'"),
        ({"settings": ["optimiser#lr=1"]}, "did you mean 'optimizer#lr'"),
        ({"settings": ["optimizer#lrr=1"]}, "did you mean 'lr'"),
        ({"settings": ["patch_size"]}, "is not KEY=VALUE"),
        ({"settings": ["loss_margin=8", "patch_size=[16,16,16]"]}, "leaves"),
        ({"settings": ["patch_size=[5000,16,16]"]}, "take at most"),
        ({"settings": ["network_def#width=0"]}, "width"),
        ({"config_files": ["nothere.yaml"]}, "nothere.yaml does not exist"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"settings": ["precision#name=float8"]}, "float8"),
        ({"iterations": None, "settings": ["iterations=0"]}, "positive"),
        ({"fold": 9}, "fold"),
    ],
)
def test_a_wrong_request_is_refused_before_data_is_read(dataset_dir: Path, tmp_path: Path, arguments, message) -> None:
    with pytest.raises(RequestError, match=message):
        train(dataset_dir, tmp_path / "run", **{"iterations": 1, "device": "cpu", **arguments})


def test_a_patch_that_the_network_cannot_take_is_refused_with_the_nearest(dataset_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"54 or 57"):
        train(dataset_dir, tmp_path / "run", network="deepmedic", settings=["patch_size=[55,57,57]"], iterations=1)


def test_another_run_is_never_written_over(dataset_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    before = (run_dir / "models" / "model.pt").read_bytes()
    with pytest.raises(RequestError, match="is a run already.*--resume"):
        train(dataset_dir, run_dir, iterations=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="already holds other files"):
        train(dataset_dir, tmp_path, iterations=1)
    assert (run_dir / "models" / "model.pt").read_bytes() == before
    with pytest.raises(RequestError, match="is not a run"):
        train(dataset_dir, tmp_path / "none", iterations=1, resume=True)
    with pytest.raises(RequestError, match="keeps the run's own configuration"):
        train(dataset_dir, run_dir, iterations=1, resume=True, settings=["seed=2"])
    with pytest.raises(RequestError, match="is not a run"):
        require_run(tmp_path, "train")


def test_a_loss_that_is_not_finite_skips_the_step_and_ends_a_run_that_only_skips(
    dataset_dir: Path, tmp_path: Path
) -> None:
    settings = [*SMALL, "optimizer#lr=1e30", "step#clip_norm=null", "step#patience=3"]
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(dataset_dir, tmp_path / "run", settings=settings, iterations=50, device="cpu")
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "logs" / "train.jsonl")]
    assert losses[0] is not None and math.isfinite(losses[0])
    assert losses[-1] is None


def test_deepmedic_trains_through_the_same_code(dataset_dir: Path, tmp_path: Path) -> None:
    settings = ["network_def#channels=[4,4,4,4,4,4,4,4]", "network_def#joint=[8,8]", "batch_size=2", "epoch_length=5"]
    status = train(dataset_dir, tmp_path / "run", network="deepmedic", settings=settings, iterations=3, device="cpu")
    assert status == 0
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())
    assert all(size <= 22 + 48 + 3 for size in config["patch_size"])
    assert json.loads((tmp_path / "run" / "logs" / "validation.jsonl").read_text().splitlines()[-1])["iteration"] == 3


@pytest.mark.parametrize(
    ("right_mm", "settings", "expected"),
    [(25.0, (), []), (25.0, ("mirror_axes=[0,2]",), [0, 2]), (0.0, (), [0])],
    ids=["always right of the middle", "set by hand", "in the middle"],
)
def test_a_sided_cohort_is_not_mirrored(
    dataset_dir: Path,
    tmp_path: Path,
    right_mm: float,
    settings: tuple[str, ...],
    expected: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The plan is written with the run; the flips that are left do what it says."""
    copy = tmp_path / "dataset"
    shutil.copytree(dataset_dir, copy)
    content = json.loads((dataset_dir / "dataset.json").read_text())
    content["root"] = str((dataset_dir / content["root"]).resolve())
    (copy / "dataset.json").write_text(json.dumps(content))
    facts = json.loads((copy / "fingerprint.json").read_text())
    facts["per_case"] = [row | {"right_mm": {"1": right_mm}} for row in facts["per_case"]]
    (copy / "fingerprint.json").write_text(json.dumps(facts))
    (copy / "plan.yaml").unlink()  # without a plan, what the fingerprint says counts when training starts
    assert train(copy, tmp_path / "run", settings=(*SMALL, *settings), iterations=1, device="cpu") == 0
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())
    assert config["mirror_axes"] == expected
    assert ("not mirrored left to right" in capsys.readouterr().err) == (expected == [])
    flips = [t for t in build(config, "augmentation").transforms if type(t).__name__ == "RandFlipd"]
    assert [t.flipper.spatial_axis for t in flips] == expected


def test_scans_of_the_last_validation_are_counted(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole scans take long after a short training: it is told how many are done, but while training goes on."""
    counted = []

    class Lines(PlainLines):
        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            counted.append((self.description, self.done, self.total))

    monkeypatch.setattr(validation, "PlainLines", Lines)
    settings = (*SMALL, "validations=2", "validation_cases=2", "validation#share=1.0")
    assert train(dataset_dir, tmp_path / "run", settings=settings, iterations=4, device="cpu") == 0
    assert counted == [("validating", 2, 2)]
