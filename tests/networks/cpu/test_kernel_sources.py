"""Kept code is compiled anew when a source of it changes: each stamp holds every module that the kernels import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")
CPU = "rarevox.networks.cpu"
KERNELS = [
    f"{CPU}.norm.kernels",
    f"{CPU}.pointwise.kernels",
    f"{CPU}.winograd.correlation",
    f"{CPU}.winograd.filters",
    f"{CPU}.winograd.kernels",
]


def imported(name: str) -> set[str]:
    """The project's modules that a module imports; of packages those in them that are named."""
    found = set()
    tree = ast.parse(Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rarevox."):
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [part for part in parts if importlib.util.find_spec(str(node.module)) and _is_module(part)]
            found |= set(modules) if modules else {str(node.module)}
    return found - {"rarevox.compiled"}


def _is_module(name: str) -> bool:
    parent, _, last = name.rpartition(".")
    paths = getattr(importlib.import_module(parent), "__path__", [])
    return any((Path(path) / f"{last}.py").is_file() for path in paths)


def all_imported(name: str) -> set[str]:
    """`imported`, and what those import."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = imported(waiting.pop()) - found
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_the_stamp_holds_every_module_that_the_kernels_import(name: str) -> None:
    stamped = {module.__name__ for module in importlib.import_module(name)._SOURCES}
    assert stamped == all_imported(name)
    assert any(module.endswith(".job") for module in stamped)


def test_these_are_all_files_with_kernels() -> None:
    folder = Path(str(importlib.import_module(f"{CPU}.volumes").__file__)).parent
    files = {path for path in folder.rglob("*.py") if "@cfunc(" in path.read_text(encoding="utf-8")}
    assert files == {folder / (name.removeprefix(f"{CPU}.").replace(".", "/") + ".py") for name in KERNELS}
