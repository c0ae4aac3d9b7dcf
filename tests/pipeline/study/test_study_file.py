"""Study files: every form of an axis, what is refused, and what is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.cells import MOST_CELLS, cells_of
from rarevox.pipeline.study.study_file import StudyFile, read_study

PAPER = """
name: paper
base: {loss: gdl, config: [paper], iterations: 10}
axes:
  network: {UNet: {network: unet2d}, TwoPathCNN: {network: twopathcnn2d}}
  patch:
    S: {by: {network: {UNet: {patch_size: [56, 56, 1], batch_size: 5}, TwoPathCNN: {patch_size: [51, 51, 1]}}}}
    M: {by: {network: {UNet: {patch_size: [64, 64, 1], batch_size: 3}, TwoPathCNN: {patch_size: [63, 63, 1]}}}}
  loss: [gdl, wce]
  lr: {key: "optimizer#lr", values: [1e-5, 1e-4, 0.001]}
record: {last: 20, test: false}
layout: {rows: [network]}
"""


def read(folder: Path, text: str) -> StudyFile:
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")


def with_axes(folder: Path, axes: Any, **more: Any) -> StudyFile:
    return read(folder, yaml.safe_dump({"base": {"iterations": 1}, "axes": axes, **more}, sort_keys=False))


def test_the_cells_are_all_combinations_the_last_axis_fastest(tmp_path: Path) -> None:
    cells = cells_of(read(tmp_path, PAPER))
    assert len(cells) == 2 * 2 * 2 * 3
    assert [cell.name for cell in cells[:4]] == [
        "UNet_S_gdl_1e-5",
        "UNet_S_gdl_1e-4",
        "UNet_S_gdl_0.001",
        "UNet_S_wce_1e-5",
    ]
    assert cells[1].labels == {"network": "UNet", "patch": "S", "loss": "gdl", "lr": "1e-4"}
    assert cells[1].settings == {
        "loss": "gdl",
        "config": ["paper"],
        "iterations": 10,
        "network": "unet2d",
        "settings": {"patch_size": [56, 56, 1], "batch_size": 5, "optimizer#lr": 1e-4},
    }
    assert cells[-1].settings["settings"] == {"patch_size": [63, 63, 1], "optimizer#lr": 1e-3}


def test_what_is_written_down_reads_as_the_same_study(tmp_path: Path) -> None:
    study = read(tmp_path, PAPER)
    again = read(tmp_path, study.text())
    assert again == study
    assert again.digest() == study.digest()


def test_the_page_shows_a_study_that_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "study.md").read_text()
    study = read(tmp_path, text.partition("```yaml\n")[2].partition("```")[0])
    assert len(cells_of(study)) == 72
    assert cells_of(study)[0].settings["settings"]["batch_size"] == 5


def test_the_digest_follows_what_is_said_and_not_how(tmp_path: Path) -> None:
    digest = read(tmp_path, PAPER).digest()
    assert read(tmp_path, "# a comment\n" + PAPER.replace("{rows: [network]}", "{rows: [loss]}")).digest() == digest
    assert read(tmp_path, PAPER.replace("last: 20", "last: 21")).digest() != digest
    assert read(tmp_path, PAPER.replace("[gdl, wce]", "[wce, gdl]")).digest() != digest


@pytest.mark.parametrize(
    ("axis", "values", "settings"),
    [
        ("loss", ["ss"], {"loss": "ss"}),
        ("seed", [7], {"settings": {"seed": 7}}),
        ("fold", [1], {"fold": 1}),
        ("iterations", [9], {"iterations": 9}),
        ("config", ["ema"], {"config": ["ema"]}),
        ("optimizer#lr", ["1e-4"], {"settings": {"optimizer#lr": 1e-4}}),
        ("batch_size", {"one": 1}, {"settings": {"batch_size": 1}}),
        ("mine", {"a": {"settings": {"loss": {"_target_": "x.Y"}}}}, {"settings": {"loss": {"_target_": "x.Y"}}}),
        ("mine", {"a": {"settings": {"iterations": 3, "seed": 1}}}, {"iterations": 3, "settings": {"seed": 1}}),
        ("mine", {"a": {"dataset": "rare"}}, {"dataset": "rare"}),
        ("mine", {"key": "patch_size", "values": [[8, 8, 8]]}, {"settings": {"patch_size": [8, 8, 8]}}),
    ],
)
def test_every_form_of_an_axis(tmp_path: Path, axis: str, values: Any, settings: dict[str, Any]) -> None:
    (cell,) = cells_of(with_axes(tmp_path, {axis: values}))
    assert cell.settings == {"iterations": 1, **settings}


def test_a_file_of_ones_own_is_found_beside_the_study(tmp_path: Path) -> None:
    (cell,) = cells_of(with_axes(tmp_path, {"config": ["mine.yaml"]}))
    assert cell.settings["config"] == [str((tmp_path / "mine.yaml").resolve())]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"los": ["gdl"]}, "did you mean 'loss'"),
        ({"a": {"x": {"netwrk": "unet2d"}}}, "did you mean 'network'"),
        ({"a": {"x": {"optimiser#lr": 1}}}, "did you mean 'optimizer'"),
        ({"loss": ["gdl", "gdl"]}, "stands there twice"),
        ({"a": {"x": {}, "y": {}}}, "two cells are the same, a x and a y"),
        ({"seed": [1, 2], "a": {"x": {"seed": 3}, "y": {"seed": 4}}}, "two cells are the same"),
        ({"loss": []}, "has no values"),
        ({"loss": 3}, "expected labels"),
        ({"loss": [3]}, "expected a name"),
        ({"a": {"x": {"by": {"b": {"y": {}}}}}}, "which is no axis"),
        ({"b": {"y": {"seed": 1}}, "a": {"x": {"by": {"b": {"z": {}}}}}}, "names z, and that axis has y"),
        ({"b": {"y": {"seed": 1}, "z": {"seed": 2}}, "a": {"x": {"by": {"b": {"z": {}}}}}}, "says nothing for 'y'"),
        ({"a": {"x": {"by": 3}}}, "expected an axis"),
        ({"a": {"key": "seed", "values": 3}}, "expected {key"),
        ({"a": {"x" * 101: {"seed": 1}}}, "a label of 101 characters"),
        ({"seed": list(range(400)), "fold": list(range(400))}, f"may have {MOST_CELLS}"),
        ({"a": {"x": {"patch_size": [float("inf")]}}}, "finite"),
        ({}, "at least one axis"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, axes: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        cells_of(with_axes(tmp_path, axes))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axes: {seed: [1]}\nbse: {}", "did you mean 'base'"),
        ("axes: {seed: [1]}\nrecord: {lst: 2}", "did you mean 'last'"),
        ("axes: {seed: [1]}\nrecord: {last: 0}", "whole number from 1"),
        ("axes: {seed: [1]}\nrecord: {test: 1}", "true or false"),
        ("axes: {seed: [1]}\nthreads: many", "whole number from 1"),
        ("axes: {seed: [1]}\nstructures: lesion", "list of names"),
        ("axes: {seed: [1]}", "has no budget"),
        ("axes: {seed: [1]}\nbase: {iterations: 5, minutes: 2}", "two budgets, 5 iterations and 2 minutes"),
        ("- 1", "mapping"),
        ("axes: {a: {x: {seed: [1, 2]", "YAML"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        cells_of(read(tmp_path, text))


def test_a_study_of_no_such_name_is_refused() -> None:
    with pytest.raises(RequestError, match="no study is called"):
        read_study("no_such_study")


def test_names_are_names_of_files_and_differ(tmp_path: Path) -> None:
    hostile = {
        "../../etc": {"seed": 1},
        "..//..etc": {"seed": 2},
        "a\nb": {"seed": 3},
        "ü": {"seed": 4},
        "x" * 100: {"seed": 5},
    }
    cells = cells_of(with_axes(tmp_path, {"a": hostile, "fold": [0, 1]}))
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) == 10
    assert all(Path(name).name == name and len(name) < 130 and not name.startswith(".") for name in names)
