"""What is told before a run is scored."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rarevox.pipeline.compose import write_yaml
from rarevox.pipeline.evaluation.beginning import (
    METRICS,
    replaced,
    scored_with,
    tell_beginning,
    tell_choice_replaced,
)
from rarevox.pipeline.files import write_json, write_text


def test_nothing_of_its_own_is_said_too() -> None:
    config = {"operating_points": {}, "post_processing": None}
    assert scored_with(config) == "scored with operating points none; post-processing none; temperature 1"
    assert scored_with(config, [1.0, 1.25]).endswith("temperature 1, 1.25")


def test_what_is_replaced_is_told_with_its_figure_and_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = {"lesion": {"threshold": 0.01}}
    config = {"operating_points": {}, "post_processing": {"lesion": {"min_ml": 0.05}}}
    tell_beginning(tmp_path, config, 1.5)
    assert "replaced" not in capsys.readouterr().err
    content = {"mean_dice": 0.63, "n_cases": 1, "context": {"operating_points": points}}
    write_json(tmp_path / METRICS, content)
    noon = time.mktime((2026, 11, 25, 12, 0, 0, 0, 0, -1))
    os.utime(tmp_path / METRICS, (noon, noon))
    tell_beginning(tmp_path, config, 1.5)
    said = capsys.readouterr().err
    assert "scored with operating points none; post-processing lesion: min_ml 0.05; temperature 1.5" in said
    found = "mean Dice 0.630 over 1 case, operating points lesion: threshold 0.01"
    assert f"{tmp_path} holds an evaluation of 2026-11-25 12:00 ({found}), which is replaced" in said


@pytest.mark.parametrize(
    "text", ["[1", "[]", "{}", '{"mean_dice": null, "n_cases": 1}', '{"mean_dice": 1, "context": 3}']
)
def test_figures_of_another_form_are_replaced_all_the_same(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / METRICS, text)
    assert replaced(tmp_path).endswith("which is replaced")


def test_figures_of_label_maps_have_no_operating_points(tmp_path: Path) -> None:
    write_json(tmp_path / METRICS, {"mean_dice": 0.5, "n_cases": 2})
    assert replaced(tmp_path).endswith("(mean Dice 0.500 over 2 cases), which is replaced")


CHOICES = [
    ("operating_points", {"lesion": {"threshold": 0.3}}, {}, "operating points lesion: threshold 0.3"),
    ("post_processing", {"lesion": {"min_ml": 0.05}}, None, "post-processing lesion: min_ml 0.05"),
    ("temperature", 1.25, 1.0, "temperature 1.25"),
]


@pytest.mark.parametrize(("key", "had", "nothing", "said"), CHOICES)
def test_a_choice_that_is_replaced_is_told(
    key: str, had: object, nothing: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {"chosen": {key: had}, "likewise": {key: had}, "not_yet": {key: nothing}, "of_an_earlier_version": {}}
    for name, content in contents.items():
        (tmp_path / name / "configs").mkdir(parents=True)
        write_text(tmp_path / name / "configs" / "inference.yaml", write_yaml(content))
    tell_choice_replaced([tmp_path / name for name in contents], key)
    told = f"{tmp_path / 'chosen'} (and 1 run more) has {said}, replaced by what is chosen now\n"
    assert capsys.readouterr().err == told
