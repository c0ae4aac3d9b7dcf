"""Runs that earlier versions wrote are used as before, without --trust, and go on to today's form."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from rarevox.pipeline.compose import write_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.training.train import train
from rarevox.pipeline.trust.earlier import brought_up
from rarevox.pipeline.trust.gate import Refusal, require_ours, run_config
from rarevox.pipeline.trust.sums import forget_sums
from rarevox.pipeline.trust.verify import verify

EARLIER = Path(__file__).parent / "earlier"
"""Configurations as two earlier versions wrote them: ``modules`` in November 2026, when targets named the modules in
which the classes stand, ``faces`` a few hours later, before channels could be left out."""
NAMES = sorted(folder.name for folder in EARLIER.iterdir())


@pytest.fixture
def earlier_run(request: pytest.FixtureRequest, run_dir: Path, dataset_dir: Path, tmp_path: Path) -> Path:
    """The run of the other tests with the configurations of an earlier version, without sums."""
    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    forget_sums(run)
    for file in (EARLIER / request.param).iterdir():
        config = yaml.safe_load(file.read_text())
        today = yaml.safe_load((run_dir / "configs" / file.name).read_text())
        for key in ("network_def", "patch_size", "batch_size", "epoch_length", "optimizer", "dataset_dir", "budget"):
            if key in today:
                config[key] = today[key]
        config["network_def"].pop("_requires_")
        (run / "configs" / file.name).write_text(write_yaml(config))
    return run


def labels(run: Path, scan: Path, out: Path) -> np.ndarray:
    assert predict(run, [scan], out, device="cpu") == 0
    return np.asarray(nib.load(out / "case_00_seg.nii.gz").dataobj)


@pytest.mark.parametrize("earlier_run", NAMES, indirect=True)
def test_an_earlier_run_is_used_and_goes_on(
    earlier_run: Path, run_dir: Path, dataset_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    scan = task_dir / "imagesTr" / "case_00.nii.gz"
    assert np.array_equal(labels(earlier_run, scan, tmp_path / "a"), labels(run_dir, scan, tmp_path / "b"))
    assert evaluate(earlier_run, dataset_dir, device="cpu") == 0
    with pytest.raises(RequestError, match=r"no sha256sums\.txt.*--resume"):
        verify(earlier_run)
    assert train(dataset_dir, earlier_run, iterations=81, device="cpu", resume=True) == 0
    assert verify(earlier_run) == 0
    for stage in ("train", "evaluate", "inference"):  # as they stand, for MONAI too
        require_ours(yaml.safe_load((earlier_run / "configs" / f"{stage}.yaml").read_text()), stage)
    labels(earlier_run, scan, tmp_path / "c")
    assert evaluate(earlier_run, dataset_dir, device="cpu") == 0


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("rarevox.pipeline.device.select_device", "rarevox.pipeline.select_device"),
        ("rarevox.pipeline.training.steps.muon.Muon", "rarevox.pipeline.training.Muon"),
        ("rarevox.networks.slices.SliceWise", "rarevox.networks.SliceWise"),
        ("rarevox.networks.HighResNet", "rarevox.networks.HighResNet"),
        ("rarevox.pipeline.trust.sums.write_sums", "rarevox.pipeline.trust.sums.write_sums"),
        ("rarevox.losses.Muon", "rarevox.losses.Muon"),
        ("pipeline.device.select_device", "pipeline.device.select_device"),
        ("os.system", "os.system"),
        (3, 3),
    ],
    ids=str,
)
def test_a_name_becomes_that_of_the_face_above_it_or_stays(was: object, now: object) -> None:
    assert brought_up({"a": [{"_target_": was, "b": {"_target_": was}}]}, "inference") == {
        "a": [{"_target_": now, "b": {"_target_": now}}]
    }


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("network_def", "rarevox.pipeline.training.record.run_log.RunLog"),
        ("inferer", "rarevox.pipeline.inference.saving.SaveLabelsd"),
        ("device", "rarevox.pipeline.trust.sums.write_sums"),
    ],
)
def test_a_name_that_was_brought_up_passes_the_gate_under_its_own_key_alone(
    key: str, target: str, run_dir: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    file = run / "configs" / "inference.yaml"
    file.write_text(write_yaml(yaml.safe_load(file.read_text()) | {key: {"_target_": target}}))
    with pytest.raises(Refusal, match=f"{key}#_target_ is"):
        run_config(run, "inference")


def test_settings_that_came_later_are_as_the_packaged_files_have_them() -> None:
    config = {"structures": ["a"], "workers": 0, "seed": 3}
    found = brought_up(config, "train")
    assert found["deterministic"] is True and found["channel_dropout"] == 0.0 and found["rarevox_installed"]
    assert found["workers"] == 0 and found["seed"] == 3
    assert "hard_patches" not in found  # is built; an earlier run asks for none
    assert brought_up(config, "evaluate") == config


def test_what_runs_said_where_rarevox_is_not_installed_is_known(run_dir: Path, tmp_path: Path) -> None:
    """An index of packages was named, where rarevox does not lie."""
    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    file = run / "configs" / "inference.yaml"
    config = yaml.safe_load(file.read_text())
    said = config["rarevox_installed"].replace("pip install . in the checkout of rarevox", "pip install rarevox")
    assert said != config["rarevox_installed"]
    file.write_text(write_yaml(config | {"rarevox_installed": said}))
    assert run_config(run, "inference")["rarevox_installed"] == said
