"""The program works from inside folders that hold packages and results by the names of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.dataset import Dataset
from tests.conftest import SMALL

PACKAGES = ("compiled", "configs", "losses", "networks", "pipeline", "transforms")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A research repository's folder: its packages must not be imported, which each of them says loudly."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('somebody else\\'s {name} was imported')\n")
    return tmp_path


def start(*command: str | Path, cwd: Path) -> None:
    """Run a command as a user does; ``python -m`` puts the working directory in front of everything installed."""
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def labels(folder: Path) -> dict[str, np.ndarray]:
    """The label maps that a prediction has left."""
    return {file.name: np.asarray(nib.load(file).dataobj) for file in sorted(folder.glob("*_seg.nii.gz"))}


def test_foreign_packages_and_an_output_folder_of_our_name(foreign: Path, dataset_dir: Path) -> None:
    """Training into `rarevox/`, which Python takes for a part of the package of that name, then predicting there."""
    settings = [part for setting in SMALL for part in ("--set", setting)]
    train = (
        "rarevox.pipeline.cli",
        "train",
        dataset_dir,
        "--output",
        "rarevox",
        "--iterations",
        "2",
        "--device",
        "cpu",
    )
    start(*train, *settings, cwd=foreign)
    for name in PACKAGES:  # and somebody's notes
        (foreign / "rarevox" / name).mkdir(exist_ok=True)
        (foreign / "rarevox" / name / "notes.txt").write_text("better than last week\n")

    scans = Dataset.load(dataset_dir).root / "imagesTr"
    start("rarevox.pipeline.cli", "predict", "rarevox", scans, "--output", "predicted", cwd=foreign)
    rows = json.loads((foreign / "predicted" / "predictions.json").read_text())
    assert len(labels(foreign / "predicted")) == 8, rows

    bundle = ("monai.bundle", "run", "--config_file", "rarevox/configs/inference.yaml", "--bundle_root", "rarevox")
    start(*bundle, "--dataset_dir", str(scans), "--output_dir", "run", cwd=foreign)
    for name, predicted in labels(foreign / "predicted").items():
        assert (labels(foreign / "run")[name] == predicted).all()
