"""Faces of packages: every name resolves, configurations name nothing else, and asking for help loads none of it."""

from __future__ import annotations

import ast
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tests.contracts.house import inside, modules

ROOT = Path(__file__).parents[2]
FILES = modules(ROOT, ("pipeline", "transforms", "networks", "losses", "compiled"))
FACES = [name for name, path in FILES.items() if path.name == "__init__.py" and hasattr(import_module(name), "__all__")]
NAMES = [(face, name) for face in FACES for name in import_module(face).__all__]


@pytest.mark.parametrize(("face", "name"), NAMES, ids=lambda value: value)
def test_every_name_of_a_face_resolves(face: str, name: str) -> None:
    found = getattr(import_module(face), name)
    assert pydoc.locate(f"{face}.{name}") is found
    assert inside(face, found.__module__)


@pytest.mark.parametrize("face", FACES)
def test_a_face_lists_its_names_and_no_module_can_take_their_place(face: str) -> None:
    package = import_module(face)
    assert set(package.__all__) <= set(dir(package))
    assert len(package.__all__) == len(set(package.__all__))
    if face.startswith(
        ("rarevox.pipeline", "rarevox.transforms")
    ):  # an import of the module of that name would put it there
        assert not {f"{face}.{name}" for name in package.__all__} & set(FILES)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = package.Nothing


def test_monai_builds_what_a_face_offers() -> None:
    entry = {"_target_": "rarevox.pipeline.training.Budget", "iterations": 7}
    assert ConfigParser({"budget": entry}).get_parsed_content("budget").iterations == 7


def targets(text: str) -> Iterator[str]:
    """The dotted names of ours that a text gives as ``_target_``, in YAML, Python or on the command line."""
    return (found[1] for found in re.finditer(r"""_target_["']?\s*[:=]\s*["']?(rarevox\.[\w.]+)""", text))


def named() -> dict[str, set[str]]:
    """File → the targets that it names: configurations, pages, and code that writes some."""
    kinds = {"configs": "*.yaml", "docs": "*.md", "pipeline": "*.py", "tests": "*.py", "benchmarks": "*.py"}
    files = {file for folder, kind in kinds.items() for file in (ROOT / folder).rglob(kind)} - {Path(__file__)}
    read = {file: set(targets(file.read_text(encoding="utf-8"))) for file in sorted(files | {*ROOT.glob("*.md")})}
    return {str(file.relative_to(ROOT)): found for file, found in read.items() if found}


NAMED = named()


def test_targets_are_found_however_they_are_written() -> None:
    text = """
    a: { _target_: rarevox.losses.DiceLoss }
    step#_target_: "rarevox.pipeline.training.Muon"
    {"_target_": "rarevox.networks.HighResNet"}
    --set loss#_target_=rarevox.losses.DL2 --set x#_target_=monai.X
    """
    assert [name.rpartition(".")[2] for name in targets(text)] == ["DiceLoss", "Muon", "HighResNet", "DL2"]


@pytest.mark.parametrize(("file", "found"), NAMED.items(), ids=NAMED)
def test_targets_name_faces_alone(file: str, found: set[str]) -> None:
    """So a file that moves changes no configuration; pages call what a reader adds ``MyLoss``."""
    own = {name for name in found if name.rpartition(".")[2].startswith("My")}
    assert found - own <= {f"{face}.{name}" for face, name in NAMES}, file


def test_every_room_says_what_it_holds() -> None:
    for name, path in FILES.items():
        if path.name == "__init__.py" and name.startswith(("rarevox.pipeline", "rarevox.transforms")):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name


def test_a_face_imports_nothing_until_it_is_asked() -> None:
    rooms = [face for face in FACES if face.startswith("rarevox.pipeline")]
    code = f"import sys, {', '.join(rooms)}; print([m for m in ('torch', 'monai', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "modules", ["rarevox.transforms", "rarevox.pipeline.service.serve, rarevox.pipeline.service.app"]
)
def test_who_leaves_the_computing_to_others_imports_none_of_its_libraries(modules: str) -> None:
    heavy = ("torch", "monai", "matplotlib", "pandas", "SimpleITK", "scipy.ndimage")
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_of_transforms_says_the_same_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "transforms" / "__init__.py").read_text(encoding="utf-8"))
    checked = next(one for one in tree.body if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING")
    stated = {
        f"{one.module}.{name.name}"
        for one in ast.walk(checked)
        if isinstance(one, ast.ImportFrom)
        for name in one.names
    }
    face = import_module("rarevox.transforms")
    assert stated == {f"{module}.{name}" for name, module in face._MODULES.items()}
    assert {name.rpartition(".")[2] for name in stated} == set(face.__all__)
