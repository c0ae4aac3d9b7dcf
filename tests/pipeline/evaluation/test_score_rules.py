"""Gates and post-processing of label maps that need no model: by hand, refused, and in the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from rarevox.pipeline.cli import cli
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.outcome import read_declared
from rarevox.pipeline.evaluation.score import score

STRUCTURES = {"organ": 1, "spot": 2, "both": (1, 2)}


def _save(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases; the prediction of the organ (64 voxels) is right but for an island of 8 voxels of 2 mm³."""
    reference = np.zeros((12, 10, 8), np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    reference[8, 8, 1] = 2
    prediction = reference.copy()
    prediction[10:12, 0:2, 6:8] = 1
    for name in "ab":
        _save(tmp_path / "references" / f"{name}.nii.gz", reference)
        _save(tmp_path / "predictions" / f"{name}.nii.gz", prediction)
    return tmp_path / "predictions", tmp_path / "references"


def _yaml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _result(output: Path) -> dict[str, Any]:
    return json.loads((output / "metrics.json").read_text())


def test_post_processing_is_scored_with_and_without(folders: tuple[Path, Path], tmp_path: Path) -> None:
    file = _yaml(tmp_path / "rules.yaml", "organ: {min_ml: 0.02}\n")  # the island has 0.016 ml
    out = tmp_path / "out"
    assert score(*folders, out, structures=STRUCTURES, post_processing=file) == 0
    result = _result(out)
    assert result["structures"]["organ"]["dice"]["mean"] == 1.0
    raw = result["without_post_processing"]
    assert raw["structures"]["organ"]["dice"]["mean"] == pytest.approx(2 * 64 / (64 + 72))
    assert raw["mean_dice"] == pytest.approx((2 * 64 / (64 + 72) + 1) / 2)
    assert result["structures"]["both"]["dice"]["mean"] == 1.0  # unions see the cleaned labels
    assert result["conventions"]["post_processing"] == {"organ": {"min_ml": 0.02}}
    kept = _yaml(tmp_path / "small.yaml", "post_processing: {organ: {min_ml: 0.016}}\n")  # exactly its volume: it stays
    assert score(*folders, tmp_path / "kept", structures=STRUCTURES, post_processing=kept, report=False) == 0
    assert _result(tmp_path / "kept")["structures"]["organ"]["dice"]["mean"] < 1


NESTED = {"rim": 1, "hot": 2, "whole": (1, 2)}
CONFIGURATION = """
regions: {{whole: [1, 2], hot: [2]}}
post_processing: {}
network_def: {{_target_: rarevox.networks.HighResNet}}
"""


@pytest.fixture
def nested(tmp_path: Path) -> tuple[Path, Path]:
    """A hot core of 8 voxels in a whole of 64; the prediction has one voxel of the rim as hot too."""
    reference = np.zeros((10, 10, 10), np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    reference[2:4, 2:4, 2:4] = 2
    prediction = reference.copy()
    prediction[5, 5, 5] = 2
    for name in "ab":
        _save(tmp_path / "references" / f"{name}.nii.gz", reference)
        _save(tmp_path / "predictions" / f"{name}.nii.gz", prediction)
    return tmp_path / "predictions", tmp_path / "references"


def test_what_a_nested_region_loses_stays_in_the_one_around_it(nested: tuple[Path, Path], tmp_path: Path) -> None:
    """As in the run itself; of labels alone the stray voxel would become background, and the whole lose it."""
    file = _yaml(tmp_path / "train.yaml", CONFIGURATION.format("{hot: {largest: true}}"))
    assert score(*nested, tmp_path / "out", structures=NESTED, post_processing=file) == 0
    result = _result(tmp_path / "out")
    assert {name: one["dice"]["mean"] for name, one in result["structures"].items()} == dict.fromkeys(NESTED, 1.0)
    assert result["without_post_processing"]["structures"]["hot"]["dice"]["mean"] == pytest.approx(2 * 8 / (8 + 9))
    assert result["conventions"]["post_processing"] == {"hot": {"largest": True}}
    assert result["conventions"]["post_processing_of"] == "nested regions"


def test_an_outer_region_has_rules_too(nested: tuple[Path, Path], tmp_path: Path) -> None:
    prediction = np.asarray(nib.load(nested[1] / "a.nii.gz").dataobj).copy()
    prediction[8:, 8:, 8:] = 2  # 8 voxels of 2 mm³ far away, in both regions
    for name in "ab":
        _save(nested[0] / f"{name}.nii.gz", prediction)
    file = _yaml(tmp_path / "train.yaml", CONFIGURATION.format("{whole: {min_ml: 0.02}, hot: {largest: true}}"))
    assert score(*nested, tmp_path / "out", structures=NESTED, post_processing=file, report=False) == 0
    result = _result(tmp_path / "out")
    assert result["structures"]["whole"]["dice"]["mean"] == 1.0
    assert result["without_post_processing"]["structures"]["whole"]["dice"]["mean"] == pytest.approx(128 / (64 + 72))
    assert list(result["conventions"]["post_processing"]) == ["whole", "hot"]


def test_a_configuration_without_regions_has_rules_for_labels(nested: tuple[Path, Path], tmp_path: Path) -> None:
    text = "regions: {}\npost_processing: {hot: {largest: true}}\n"
    file = _yaml(tmp_path / "train.yaml", text)
    assert score(*nested, tmp_path / "out", structures=NESTED, post_processing=file, report=False) == 0
    result = _result(tmp_path / "out")
    assert result["structures"]["whole"]["dice"]["mean"] == pytest.approx(2 * 63 / (64 + 63))
    assert "post_processing_of" not in result["conventions"]


def test_without_rules_nothing_is_said_of_raw_figures(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert score(*folders, tmp_path / "out", structures=STRUCTURES, report=False) == 0
    result = _result(tmp_path / "out")
    assert "without_post_processing" not in result
    assert (result["gates"], result["conventions"]["post_processing"]) == ([], "none")


def test_gates_end_with_status_1_and_name_what_failed(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = _yaml(tmp_path / "gates.yaml", "gates: {organ: {mean: 0.95, worst: 0.9}, both: {mean: 0.9}}\n")
    out = tmp_path / "out"
    assert score(*folders, out, structures=STRUCTURES, gates=gates, report=False) == 1
    assert [(gate["structure"], gate["rule"], gate["passed"]) for gate in _result(out)["gates"]] == [
        ("organ", "mean", False),
        ("organ", "worst", True),
        ("both", "mean", True),
    ]
    assert "gate not passed organ: mean Dice is 0.941, the gate asks for 0.950" in capsys.readouterr().err
    rules = _yaml(tmp_path / "rules.yaml", "organ: {largest: true}\n")
    arguments = ["score", *map(str, folders), "--gates", str(gates), "--post-processing", str(rules)]
    arguments += [text for name, value in STRUCTURES.items() for text in ("--structure", f"{name}={_text(value)}")]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert (done.exception, done.return_value) == (None, 0)  # gates look at the figures with post-processing


def _text(value: int | tuple[int, ...]) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("gates", "organ: {mean: 75}", "expected a Dice from 0 to 1"),
        ("gates", "orgna: {mean: 0.7}", "did you mean 'organ'"),
        ("gates", "[1, 2]", "must be a mapping"),
        ("gates", "{", "not valid YAML"),
        ("gates", "network: {_target_: rarevox.networks.HighResNet}", "configuration without 'gates'"),
        ("post_processing", "organ: {smallest: true}", "no rule 'smallest'"),
        ("post_processing", "both: {largest: true}", "no structure is called 'both'"),
    ],
)
def test_wrong_files_are_refused_before_anything_is_written(
    folders: tuple[Path, Path], tmp_path: Path, option: str, text: str, words: str
) -> None:
    file = _yaml(tmp_path / "wrong.yaml", text)
    with pytest.raises(RequestError, match=words):
        score(*folders, tmp_path / "out", structures=STRUCTURES, **{option: file})
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert read_declared(None, "gates") == {}
    with pytest.raises(RequestError, match="nowhere.yaml does not exist"):
        read_declared(tmp_path / "nowhere.yaml", "gates")


@pytest.mark.parametrize("option", ["gates", "post_processing"])
def test_a_folder_for_a_file_is_called_so(option: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="predictions is a folder; give a YAML file"):
        score(*folders, structures=STRUCTURES, **{option: folders[0]})


@pytest.mark.parametrize("text", ["gates: {}", "{}", ""])
def test_a_file_without_gates_is_told(
    text: str, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(*folders, structures=STRUCTURES, gates=_yaml(tmp_path / "g.yaml", text)) == 0
    assert "no gates" in capsys.readouterr().err
