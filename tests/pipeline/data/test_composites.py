"""Composite structures: declared, checked, and followed from the source to the comparison of evaluations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from rarevox.pipeline.cli import cli
from rarevox.pipeline.data.composites import labels_and_unions, parse_structures, read_composites
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.compare import compare
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.report.page import case_means
from rarevox.pipeline.evaluation.score import score
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.preparation.sources.find import find_cases

LABELS = {"background": 0, "ball": 1, "box": 2}


def _call(*arguments: Any) -> Any:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value


@pytest.fixture(scope="module")
def with_both(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic dataset with a composite written into its file by hand."""
    content = json.loads((dataset_dir / "dataset.json").read_text())
    content["composites"] = {"both": [2, 1]}
    folder = tmp_path_factory.mktemp("composites")
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([1, 2], "expected for example"),
        ({"both": 1}, "two label values or more"),
        ({"both": [1]}, "two label values or more"),
        ({"both": [1, 1]}, "each once"),
        ({"both": [1, 2.0]}, "label values"),
        ({"both": [True, 2]}, "label values"),
        ({"both": [1, 3]}, "both holds 3, which no label has; labels are ball = 1, box = 2"),
        ({"both": [0, 1]}, "both holds 0"),
        ({"box": [1, 2]}, "is the name of a label"),
        ({"background": [1, 2]}, "is the name of a label"),
    ],
)
def test_wrong_composites_are_refused(declared: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read_composites(declared, LABELS, "dataset.json")


def test_no_composites() -> None:
    assert read_composites(None, LABELS, "") == read_composites({}, LABELS, "") == {}


def test_a_dataset_file_with_a_wrong_composite_names_the_file(with_both: Path, tmp_path: Path) -> None:
    content = json.loads((with_both / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"composites": {"both": [1, 9]}}))
    with pytest.raises(RequestError, match=r'"composites" in .*dataset.json: both holds 9'):
        Dataset.load(tmp_path)
    assert Dataset.load(with_both).scored == {"ball": 1, "box": 2, "both": (1, 2)}
    assert Dataset.load(with_both).structures == ("ball", "box")


def test_regions_of_nnunet_by_hand() -> None:
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    labels, unions = labels_and_unions({k: tuple(v) if isinstance(v, list) else v for k, v in regions.items()})
    assert labels == {"label_1": 1, "label_2": 2, "enhancing": 3}
    assert unions == {"whole": (1, 2, 3), "core": (2, 3)}


def test_regions_of_an_nnunet_source_become_composites(task_dir: Path, tmp_path: Path) -> None:
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / kind).mkdir()
    for name in ("case_00", "case_01", "case_02", "case_03"):
        shutil.copy(task_dir / "imagesTr" / f"{name}.nii.gz", tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
        shutil.copy(task_dir / "labelsTr" / f"{name}.nii.gz", tmp_path / "labelsTr")
    labels = {"background": 0, "both": [1, 2], "box": 2}
    content = {"channel_names": {"0": "noise"}, "labels": labels, "regions_class_order": [1, 2], "numTraining": 4}
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz"}))
    source = find_cases(tmp_path)
    assert (source.labels, source.composites) == ({"label_1": 1, "box": 2}, {"both": (1, 2)})
    assert _call("prepare", tmp_path, "--output", tmp_path / "a") == 0
    assert json.loads((tmp_path / "a" / "dataset.json").read_text())["composites"] == {"both": [1, 2]}
    named = ("--structure", "ball=1", "--structure", "box=2")
    assert _call("prepare", tmp_path, "--output", tmp_path / "b", *named) == 0
    assert Dataset.load(tmp_path / "b").composites == {}  # given labels replace what the source says


def test_prepare_takes_unions_beside_the_labels_of_the_source(task_dir: Path, tmp_path: Path) -> None:
    assert _call("prepare", task_dir, "--output", tmp_path / "d", "--structure", "both=1+2") == 0
    data = Dataset.load(tmp_path / "d")
    assert data.labels == LABELS
    assert data.composites == {"both": (1, 2)}
    with pytest.raises(RequestError, match="both holds 7, which no label has"):
        prepare(task_dir, tmp_path / "e", composites={"both": (1, 7)})
    with pytest.raises(
        RequestError,
        match="'both=x' was not understood; write NAME=VALUE with the whole number",
    ):
        _call("prepare", task_dir, "--output", tmp_path / "e", "--structure", "both=x")


def test_the_mean_is_over_the_labels_and_the_union_has_its_own_figures() -> None:
    """Prediction and reference swap two labels half of the time: the union is perfect, its parts are not."""
    reference = np.array([1, 1, 2, 2], np.uint8).reshape(4, 1, 1)
    prediction = np.array([1, 2, 2, 1], np.uint8).reshape(4, 1, 1)
    structures = {"a": 1, "b": 2, "both": (1, 2)}
    rows = case_rows("x", prediction, reference, (1, 1, 1), structures)
    assert [row["dice"] for row in rows] == [0.5, 0.5, 1.0]
    result = aggregate(rows, structures)
    assert result["mean_dice"] == 0.5
    assert result["conventions"]["mean_over"] == ["a", "b"]
    assert result["structures"]["both"]["dice"]["mean"] == 1.0
    assert case_means(result) == {"x": 0.5}
    asked = aggregate(rows, structures, options=MetricOptions(composites_in_mean=True))
    assert asked["mean_dice"] == pytest.approx(2 / 3)
    alone = [row for row in rows if row["structure"] == "both"]
    assert aggregate(alone, {"both": (1, 2)})["mean_dice"] == 1.0  # there is no other structure to stand for it


def test_the_interval_of_the_mean_ignores_unions() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for case in "abcdef":
        prediction, reference = rng.integers(0, 3, (2, 4, 4, 4)).astype(np.uint8)
        rows += case_rows(case, prediction, reference, (1, 1, 1), {"a": 1, "b": 2, "both": (1, 2)})
    parts = [row for row in rows if row["structure"] != "both"]
    whole, part = aggregate(rows, {"a": 1, "b": 2, "both": (1, 2)}), aggregate(parts, {"a": 1, "b": 2})
    assert whole["mean_dice_ci95"] == part["mean_dice_ci95"]


def test_composites_go_through_evaluation_gates_and_comparison(run_dir: Path, with_both: Path, tmp_path: Path) -> None:
    gates = ["gates#both#mean=1.0"]
    assert evaluate(run_dir, with_both, output=tmp_path / "a", device="cpu", settings=gates) == 1
    result = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert list(result["structures"]) == ["ball", "box", "both"]
    assert [gate["structure"] for gate in result["gates"]] == ["both"]
    assert result["mean_dice"] == pytest.approx(
        np.mean([result["structures"][name]["dice"]["mean"] for name in ("ball", "box")])
    )
    assert "both" in (tmp_path / "a" / "cases.csv").read_text()
    for case in Dataset.load(with_both).section("test"):
        labels = np.asarray(nib.load(tmp_path / "a" / "predictions" / f"{case['case']}_seg.nii.gz").dataobj) > 0
        reference = np.asarray(nib.load(case["label"]).dataobj) > 0
        row = next(r for r in result["cases"] if r["case"] == case["case"] and r["structure"] == "both")
        assert row["dice"] == pytest.approx(2 * (labels & reference).sum() / (labels.sum() + reference.sum()))
    # The same label maps through `score`, with the names and unions of the dataset.
    references = Path(Dataset.load(with_both).section("test")[0]["label"]).parent
    wanted = tmp_path / "references"
    wanted.mkdir()
    for case in Dataset.load(with_both).section("test"):
        shutil.copy(references / Path(case["label"]).name, wanted)
    shutil.copy(with_both / "dataset.json", tmp_path)
    assert score(tmp_path / "a" / "predictions", wanted, tmp_path / "b", report=False) == 0
    scored = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert scored["cases"] == result["cases"]
    assert scored["mean_dice"] == result["mean_dice"]
    (tmp_path / "dataset.json").unlink()
    given = ("score", tmp_path / "a" / "predictions", wanted, "--output", tmp_path / "d", "--dataset")
    assert _call(*given, with_both) == 0
    named = json.loads((tmp_path / "d" / "metrics.json").read_text())
    assert named["cases"] == result["cases"]
    assert named["conventions"]["structures_from"] == str(with_both)
    with pytest.raises(RequestError, match="does not exist"):
        _call(*given, tmp_path / "nowhere")
    assert compare([tmp_path / "a", tmp_path / "b"], tmp_path / "c") == 0
    compared = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert compared["evaluations"][0]["mean"] == pytest.approx(result["mean_dice"])
    assert list(compared["evaluations"][0]["structures"]) == ["ball", "box", "both"]


def test_a_bundle_and_predict_know_the_composites(
    run_dir: Path, with_both: Path, task_dir: Path, tmp_path: Path
) -> None:
    from rarevox.pipeline.build import build
    from rarevox.pipeline.compose import compose, derive
    from rarevox.pipeline.training.configured import check

    data = Dataset.load(with_both)
    trained = compose("train", dataset=data, settings=["gates#both#mean=0.5", "patch_size=[16,16,16]"]).config
    check(trained, data)
    assert trained["structures"] == ["ball", "box"]
    scorer = build(derive("evaluate", trained) | {"output_dir": str(tmp_path)}, "scorer")
    assert scorer.structures == {"ball": 1, "box": 2, "both": [1, 2]}
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    file = run / "configs" / "inference.yaml"
    file.write_text(file.read_text().replace("composites: {}", "composites: {both: [1, 2]}"))
    assert predict(run, [task_dir / "imagesTr" / "case_00.nii.gz"], tmp_path / "out", device="cpu") == 0
    volume = json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"][0]["volume_ml"]
    assert volume["both"] == pytest.approx(volume["ball"] + volume["box"])
    assert volume["both"] > 0


@pytest.mark.parametrize("entry", ["core", "core=", "core=x", "=1", "core=1,2"])
def test_structure_entries_that_are_not_understood(entry: str) -> None:
    with pytest.raises(RequestError, match="NAME=VALUE"):
        parse_structures([entry])


def test_structure_twice() -> None:
    with pytest.raises(RequestError, match="twice"):
        parse_structures(["a=1", "a=2"])
