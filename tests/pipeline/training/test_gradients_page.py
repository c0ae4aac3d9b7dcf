"""The script that turns gradient logs into a table and curves."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "losses" / "gradients.py"


@pytest.fixture(scope="module")
def script() -> Any:
    specification = importlib.util.spec_from_file_location("loss_gradients", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def write_run(folder: Path, cosines: list[float | None], dataset: str = "/data/somewhere/hippocampus") -> Path:
    """A run of ten steps for each cosine; a measured step takes 3 s, any other 1 s."""
    (folder / "logs").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "configs" / "train.yaml").write_text(f"dataset_dir: {dataset}\n")
    rows = [
        {"iteration": 10 * i + 1, "alpha": 0.5, "terms": {}, "norms": {"dice": 1.0, "ce": 4.0}, "cosine": cosine}
        for i, cosine in enumerate(cosines)
    ]
    steps, seconds = [], 0
    for iteration in range(1, 10 * len(cosines) + 1):
        seconds += 3 if iteration % 10 == 1 else 1
        steps.append({"iteration": iteration, "seconds": seconds})
    found = {"gradients": rows, "train": steps, "validation": [{"mean_dice": 0.5}, {"mean_dice": 0.75}]}
    for name, lines in found.items():
        (folder / "logs" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_line_says_what_the_logs_say(script: Any, tmp_path: Path) -> None:
    """Of −1, −0.5, 0, 0.5, 0.5, 0.5 two of six are negative: both of the first third, none of the last."""
    run = script.read_run(write_run(tmp_path / "dice_ce", [-1.0, -0.5, 0.0, 0.5, 0.5, 0.5]))
    cells = [cell.strip() for cell in script.line(run).strip("|").split("|")]
    assert cells[:4] == ["hippocampus", "dice_ce", "6 of 60 steps", "0.25"]
    assert cells[4] == "+0.25 (-0.75 to +0.50)"
    assert cells[5:9] == ["33 %", "100 %", "0 %", "0.7500"]
    # 5 measured of the 58 steps after the first two, each of 3 times the time: 5/58 · 2
    assert script.cost(run) == pytest.approx(5 / 58 * 2)


def test_missing_cosines_are_left_out(script: Any, tmp_path: Path) -> None:
    run = script.read_run(write_run(tmp_path / "run", [None, None, None]))
    assert "nan" not in script.line(run)
    assert "–" in script.line(run)


def test_the_page_and_the_curves_are_written(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "gradients.md"
    page.write_text(script.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(script, "PAGE", page)
    folders = [
        str(write_run(tmp_path / data / name, [0.1, None, -0.2], dataset=data))
        for data in ("hippocampus", "phantom")
        for name in ("dice_ce", "projected")
    ]
    for _ in range(2):  # a second time replaces the first
        monkeypatch.setattr(sys, "argv", ["gradients.py", *folders])
        script.main()
    assert page.read_text(encoding="utf-8").count("| phantom | projected |") == 1
    assert page.read_text(encoding="utf-8").rstrip().endswith("used up.")
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["gradients.py", "--print", folders[0]])
    script.main()
    assert capsys.readouterr().out.startswith(script.HEAD)


def test_a_run_without_measurements_is_named(script: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [])
    with pytest.raises(SystemExit, match="holds no logs/gradients.jsonl; train it with --config gradients"):
        script.read_run(folder)
