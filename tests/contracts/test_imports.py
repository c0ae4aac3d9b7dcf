"""Imports run as CONTRIBUTING.md draws it: from floor to lower floor, never in a circle, ours as ``rarevox.…``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.house import (
    arrows,
    file_circles,
    imports,
    misspelt,
    modules,
    places,
    read_orders,
    room_circles,
    upward,
)

ROOT = Path(__file__).parents[2]
FILES = modules(ROOT, ("pipeline", "transforms", "networks", "losses", "compiled", "configs"))
ORDERS = read_orders((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
ARROWS = arrows(FILES)


def test_the_page_orders_the_house_and_its_larger_rooms() -> None:
    assert {"rarevox", "rarevox.pipeline", "rarevox.pipeline.training", "rarevox.pipeline.evaluation"} <= set(ORDERS)


@pytest.mark.parametrize("room", ORDERS)
def test_every_file_of_an_ordered_room_stands_on_one_floor(room: str) -> None:
    assert places(room, ORDERS[room], FILES)[1] == []


@pytest.mark.parametrize("room", ORDERS)
def test_imports_run_from_floor_to_lower_floor(room: str) -> None:
    assert upward(room, places(room, ORDERS[room], FILES)[0], ARROWS) == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert file_circles(ARROWS) == []


def test_no_rooms_import_one_another_in_a_circle() -> None:
    assert room_circles(FILES, ARROWS) == []


@pytest.mark.parametrize(
    ("room", "door"),
    [
        ("rarevox.networks.cpu", "rarevox.networks.cpu.ops"),
        ("rarevox.losses.sums.cpu", "rarevox.losses.sums.cpu.overlap"),
    ],
)
def test_compiled_work_has_one_door(room: str, door: str) -> None:
    """Networks and losses import what computes, never how."""
    outside = {arrow for arrow in ARROWS if arrow.target.startswith(room) and not arrow.source.startswith(room)}
    assert outside
    assert {arrow.target for arrow in outside} == {door}


def test_imports_of_ours_are_spelled_in_full() -> None:
    assert misspelt(FILES, {name.split(".")[1] for name in FILES}) == []


def test_losses_need_torch_alone() -> None:
    for name, path in FILES.items():
        if name.startswith("rarevox.losses"):
            used = {module.split(".")[0] for _, module in imports(ast.parse(path.read_text(encoding="utf-8")))}
            assert "monai" not in used, name


def test_help_imports_nothing_heavy() -> None:
    heavy = "('torch', 'monai', 'numpy', 'nibabel')"
    code = f"import sys, rarevox.pipeline.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
