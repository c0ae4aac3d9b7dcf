"""The proof of the checks: none finds anything in 195 real cases; each finds its fault planted in one of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import RequestError
from pipeline.preparation.prepare import prepare

from .planted import ALSO, PLANTS, Task


@pytest.mark.data
@pytest.mark.slow
def test_every_fault_planted_in_real_cases_is_found_and_no_other(tmp_path: Path, data_dir: Path) -> None:
    root = Path(shutil.copytree(data_dir / "Task04_Hippocampus", tmp_path / "task"))
    task = Task(root)
    names = [Path(row["label"]).name.removesuffix(".nii.gz") for row in task.content["training"]]
    victims = dict(zip(PLANTS, names[10::5], strict=False))
    assert len(victims) == len(PLANTS)
    for check, case in victims.items():
        PLANTS[check](task, case)
    with pytest.raises(RequestError, match="of 195 cases have errors"):
        prepare(root, tmp_path / "out")
    faults = json.loads((tmp_path / "out" / "rejected.json").read_text())["faults"]
    found: dict[str, set[str]] = {}
    for fault in faults:
        found.setdefault(fault["case"], set()).add(fault["check"])
    expected = {case: {check} | ALSO.get(check, set()) for check, case in victims.items()}
    assert found == expected
