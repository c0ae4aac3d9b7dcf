"""The page of telling cases says what the losses say."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

from rarevox import losses

SCRIPT = Path(losses.__file__).parents[1] / "docs" / "losses" / "cases.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("loss_cases", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_on_disk_is_up_to_date(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.page()


def test_every_loss_class_is_on_it(script):
    shown = {type(loss).__name__ for loss in script.LOSSES.values()}
    classes = {name: getattr(losses, name) for name in losses.__all__ if name.endswith("Loss")}
    assert shown == {name for name, loss in classes.items() if not inspect.isabstract(loss)}


def test_a_wholly_wrong_structure_is_worse_than_a_shifted_one_for_every_loss(script):
    cases = script.cases()
    for name, loss in script.LOSSES.items():
        right, shifted, missed = (
            script.value(loss, *cases[case]) for case in ("all right", "shifted by one voxel", "structure missed")
        )
        assert right < shifted < missed, name
