"""A run and a dataset before measuring: what is said of scans that differ from those that the run learnt from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.evaluation.run_and_dataset import tell_correction
from rarevox.pipeline.inference.ensemble import segmenter_of


@pytest.fixture
def corrected(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the run that learnt from corrected scans, as its configuration for prediction says."""
    run = tmp_path / "corrected"
    shutil.copytree(run_dir, run)
    path = run / "configs" / "inference.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"n4": True}, sort_keys=False))
    return run


def _data(dataset_dir: Path, folder: Path, n4: bool) -> Dataset:
    content = json.loads((dataset_dir / "dataset.json").read_text())
    content |= {"root": str(Dataset.load(dataset_dir).root), "n4": n4}
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@pytest.mark.parametrize(
    ("learnt", "prepared", "settings", "told"),
    [
        (False, False, [], ""),
        (True, True, [], ""),
        (False, True, [], "other scans: Ball and box holds scans corrected by N4"),
        (True, False, [], "those of Ball and box are corrected first"),
        (True, False, ["n4=false"], "no N4: "),
    ],
)
def test_scans_corrected_otherwise_than_in_training_are_told(
    learnt: bool,
    prepared: bool,
    settings: list[str],
    told: str,
    run_dir: Path,
    corrected: Path,
    dataset_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = _data(dataset_dir, tmp_path, prepared), corrected if learnt else run_dir
    options = {"device": "cpu", "settings": settings, "uncorrected": not data.n4}
    tell_correction(segmenter_of(run, (), "evaluate", **options), data)
    said = " ".join(capsys.readouterr().err.split())
    assert told in said
    assert bool(told) == bool(said)


def test_each_run_of_an_ensemble_is_told_of(
    run_dir: Path, corrected: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _data(dataset_dir, tmp_path, True)
    tell_correction(segmenter_of(corrected, (run_dir,), "evaluate", device="cpu"), data)
    said = "".join(capsys.readouterr().err.split())
    assert "".join(str(run_dir).split()) in said
    assert str(corrected) not in said
