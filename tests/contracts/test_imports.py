"""Imports run one way: pipeline → transforms, networks, losses → compiled; those three do not know one another."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ("pipeline", "transforms", "networks", "losses", "compiled", "configs")
ALLOWED = {
    "pipeline": set(HOUSE),
    "transforms": {"transforms", "compiled"},
    "networks": {"networks", "compiled"},
    "losses": {"losses", "compiled"},
    "compiled": {"compiled"},
    "configs": set[str](),
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", HOUSE)
def test_packages_import_only_what_the_house_allows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        foreign = imported(file) & set(HOUSE) - ALLOWED[package]
        assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


def test_losses_need_torch_alone() -> None:
    for file in (ROOT / "losses").glob("*.py"):
        assert "monai" not in imported(file), file.name


def test_help_imports_nothing_heavy() -> None:
    heavy = "('torch', 'monai', 'numpy', 'nibabel')"
    code = f"import sys, rarevox.pipeline.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
