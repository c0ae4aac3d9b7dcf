"""What is installed is what is here: the list of packages in `pyproject.toml` and the data files beside the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = {"tests"}
LEFT_BY_TOOLS = {"__pycache__", ".ruff_cache", ".mypy_cache"}


@pytest.fixture(scope="module")
def setuptools_options() -> dict[str, Any]:
    """The table `tool.setuptools` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def folder(package: str) -> Path:
    """Where a package lies: `rarevox.losses.sums` in `losses/sums`."""
    return ROOT.joinpath(*package.split(".")[1:])


def house() -> list[Path]:
    """The top-level folders that are sub-packages of `rarevox`."""
    return [init.parent for init in sorted(ROOT.glob("*/__init__.py")) if init.parent.name not in NOT_INSTALLED]


def data_files() -> set[Path]:
    """Files beside the code that are no Python: templates, YAML, JSON, `py.typed`."""
    found = {file for top in house() for file in top.rglob("*") if file.is_file() and file.suffix != ".py"}
    return {file for file in found if not LEFT_BY_TOOLS.intersection(file.parts)}


def test_every_package_is_listed_and_every_listed_package_exists(setuptools_options: dict[str, Any]) -> None:
    inits = {init for top in house() for init in top.rglob("__init__.py")}
    there = {".".join(("rarevox", *init.parent.relative_to(ROOT).parts)) for init in inits}
    assert setuptools_options["packages"] == sorted(there)


def test_every_folder_of_code_is_a_package() -> None:
    """Python takes a folder without `__init__.py` for a package as well; an installation leaves it out."""
    folders = {file.parent for top in house() for file in top.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_every_data_file_is_installed(setuptools_options: dict[str, Any]) -> None:
    patterns = dict(setuptools_options["package-data"])
    everywhere = patterns.pop("*")
    installed = {
        file
        for package in setuptools_options["packages"]
        for pattern in (*everywhere, *patterns.get(package, ()))
        for file in folder(package).glob(pattern)
    }
    assert data_files() - installed == set()


def test_every_pattern_of_data_files_matches_some(setuptools_options: dict[str, Any]) -> None:
    for package, patterns in setuptools_options["package-data"].items():
        places = [folder(name) for name in (setuptools_options["packages"] if package == "*" else [package])]
        for pattern in patterns:
            assert any(any(place.glob(pattern)) for place in places), f"{package}: {pattern} matches no file"


@pytest.mark.parametrize("top", house(), ids=lambda top: top.name)
def test_the_annotations_of_every_package_count(top: Path) -> None:
    """Type checkers read the annotations of an installed package where `py.typed` says so (PEP 561)."""
    assert (top / "py.typed").exists() or top.name == "configs"
