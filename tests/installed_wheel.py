"""The wheel, installed into an empty environment away from the checkout: `make wheel-test`.

Takes a minute or two, as the kernels are compiled anew for each installation, and is no part of `make test`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import SMALL, write_task
from tests.test_wheel import ROOT, build

WHERE = """
import importlib, sys
import rarevox.networks
for name in ("compiled", "configs", "losses", "networks", "pipeline", "transforms"):
    print(importlib.import_module(f"rarevox.{name}").__file__)
print(*sys.path, sep="\\n")
"""


class Environment:
    """A virtual environment with rarevox out of a wheel; what it depends on is borrowed from this one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder / "venv", with_pip=False)
        self.cwd = folder / "elsewhere"
        self.cwd.mkdir()
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.run(
            sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--no-deps", "--no-index", wheel
        )
        site = self.run(self.bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        # A path in a .pth file is put behind the environment's own; .pth files in it, such as that of the editable
        # installation of this checkout, are not read.
        Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str | Path) -> str:
        """All that a command says, started away from the checkout and without what the tests have on their path."""
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(list(map(str, command)), cwd=self.cwd, capture_output=True, text=True, env=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("installed")
    return Environment(folder, build(folder))


def test_every_package_is_the_installed_one(installed: Environment) -> None:
    said = installed.run(installed.bin / "python", "-c", WHERE).splitlines()
    assert all(Path(file).is_relative_to(installed.bin.parent) for file in said[:6]), said
    assert not any(Path(path).resolve() == ROOT for path in said[6:] if path)


def test_the_commands_and_the_bundle_work(installed: Environment, tmp_path: Path) -> None:
    rarevox = installed.bin / "rarevox"
    assert "predict" in installed.run(rarevox, "--help")
    assert "torch" in installed.run(rarevox, "doctor")

    task = write_task(tmp_path / "task", cases=6)
    installed.run(rarevox, "prepare", task, "--output", "dataset", "--holdout", "0.2", "--folds", "2")
    settings = [part for setting in SMALL for part in ("--set", setting)]
    brief = ("--iterations", "10", "--device", "cpu")
    installed.run(rarevox, "train", "dataset", "--output", "run", *brief, *settings)
    installed.run(rarevox, "evaluate", "run", "dataset")
    installed.run(rarevox, "predict", "run", task / "imagesTr", "--output", "predicted")
    rows = json.loads((installed.cwd / "predicted" / "predictions.json").read_text())

    bundle = ("-m", "monai.bundle", "run", "--config_file", "run/configs/inference.yaml", "--bundle_root", "run")
    data = ("--dataset_dir", task / "imagesTr", "--output_dir", "by_bundle")
    installed.run(installed.bin / "python", *bundle, *data)
    ours = sorted((installed.cwd / "predicted").glob("*_seg.nii.gz"))
    assert len(ours) == 6, rows
    for file in ours:
        theirs = nib.load(installed.cwd / "by_bundle" / file.name)
        assert (np.asarray(theirs.dataobj) == np.asarray(nib.load(file).dataobj)).all()
