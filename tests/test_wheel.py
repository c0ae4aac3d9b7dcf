"""What is published: a source distribution that builds the wheel, and a wheel that holds `rarevox/` alone."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> Path:
    """Build both into a folder, the wheel from the source distribution; gives the wheel back."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def test_the_wheel_holds_the_packages_and_their_data_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    packages = [init.parent for init in ROOT.glob("*/__init__.py") if init.parent.name != "tests"]
    files = [file for package in packages for file in package.rglob("*") if file.is_file()]
    here = {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
    assert names == {f"rarevox/{name}" for name in here}


def test_the_wheel_is_for_any_machine_and_brings_the_command_and_the_licence(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = {name.partition(".dist-info/")[2]: archive.read(name).decode() for name in archive.namelist()}
    assert "rarevox = rarevox.pipeline.cli:main" in info["entry_points.txt"]
    assert info["licenses/LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_metadata_describe_the_project(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    for wanted in ("Summary", "Keywords", "Classifier", "Requires-Python", "Requires-Dist"):
        assert metadata[wanted], wanted


def test_an_extra_is_for_users_or_for_this_checkout_alone(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == {
        *("demo", "mlflow", "export", "dicom", "ray", "serve", "centreline"),
        *("docs", "test"),
    }


def test_the_source_distribution_holds_what_builds_the_wheel_and_no_more(wheel: Path) -> None:
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")} - {"tests"}
    files = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "MANIFEST.in", "PKG-INFO", "setup.cfg"}
    assert tops == packages | files | {"rarevox.egg-info"}
