"""Cases that cannot be read stand in the run's logs and card, with their reasons, and go when they can be read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rarevox.pipeline.bundle import CARD, LEFT_OUT, left_out_of, with_left_out
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.training.record.left_out import note_left_out
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL

ROW = {"case": "a", "section": "train", "reason": "a.nii is truncated"}


@pytest.fixture
def broken(dataset_dir: Path, tmp_path: Path) -> tuple[Path, list[dict[str, object]]]:
    """A dataset of files of its own in which one case of training and one of validation are cut off; these."""
    data = Path(shutil.copytree(dataset_dir, tmp_path / "data"))
    content = json.loads((data / "dataset.json").read_text())
    root = Path(shutil.copytree((data / content["root"]).resolve(), tmp_path / "task"))
    (data / "dataset.json").write_text(json.dumps(content | {"root": str(root)}))
    folds = {row["fold"]: row for row in content["training"]}
    for row in (folds[0], folds[1]):  # fold 0 validates
        os.truncate(root / row["image"], 3000)
    return data, [folds[1], folds[0]]


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_training_writes_down_what_it_left_out_and_its_evaluation_keeps_it(
    cache: str, broken: tuple[Path, list[dict[str, object]]], tmp_path: Path
) -> None:
    data, (learnt, validating) = broken
    run = tmp_path / "run"
    settings = [*SMALL, f"cache={cache}", f"cache_dir={tmp_path}/cache", "validations=1"]
    assert train(data, run, settings=settings, iterations=1, device="cpu") == 1
    rows = json.loads((run / LEFT_OUT).read_text())["cases"]
    assert [(row["section"], row["case"]) for row in rows] == [
        ("train", learnt["case"]),
        ("validation", validating["case"]),
    ]
    assert all("truncated" in row["reason"] for row in rows)
    card = (run / CARD).read_text()
    assert all(f" | {row['section']} | " in card for row in rows) and card.count("is truncated") == 2
    assert evaluate(run, data, device="cpu") == 0
    after = (run / CARD).read_text()
    assert "## Left out" in after and "| ball |" in after
    before = (run / "sha256sums.txt").read_text()
    note_left_out(run, [])
    assert "## Left out" not in (run / CARD).read_text() and not (run / LEFT_OUT).exists()
    assert (run / "sha256sums.txt").read_text() == before


def test_a_resumed_training_that_reads_all_forgets_them(dataset_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    note_left_out(run, [ROW])
    assert left_out_of(run) == [ROW] and "a.nii is truncated" in (run / CARD).read_text()
    assert train(dataset_dir, run, iterations=81, device="cpu", resume=True) == 0
    assert left_out_of(run) == [] and "## Left out" not in (run / CARD).read_text()


def test_a_table_of_many_says_where_the_others_are() -> None:
    card = "# x\n\n## Data\n\n## Training\n- y\n"
    told = with_left_out(card, [ROW | {"case": str(number)} for number in range(60)])
    assert told.count("is truncated") == 50 and "and 10 more: `logs/left_out.json`" in told
    assert with_left_out(told, [ROW]).count("is truncated") == 1
    assert with_left_out(with_left_out(told, [ROW]), []) == card


def test_what_names_hold_is_data_in_the_card() -> None:
    card = with_left_out("## Training\n", [{"case": "a|b", "section": "train", "reason": "<script>\n## Training"}])
    assert "<script>" not in card and card.count("\n## Training\n") == 1
    assert sum(line.startswith("|") for line in card.splitlines()) == 3


@pytest.mark.parametrize("content", ["[]", '{"cases": 3}', '{"cases": [3]}', "{"])
def test_a_malformed_file_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / LEFT_OUT).write_text(content)
    with pytest.raises(RequestError, match="left_out"):
        left_out_of(tmp_path)
