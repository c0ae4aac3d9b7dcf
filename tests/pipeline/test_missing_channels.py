"""A run trained with channel dropout, from its patches to maps of scans that lack a channel."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from rarevox.pipeline.build import build
from rarevox.pipeline.cli import cli
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.training.train import train
from rarevox.transforms import ZeroMissingChannelsd
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def two(task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic cases with a second channel, a file for each, prepared; and a short run with channel dropout."""
    folder = tmp_path_factory.mktemp("two")
    source = folder / "source"
    for file in sorted((task_dir / "imagesTr").glob("*.nii.gz")):
        case = source / file.name.removesuffix(".nii.gz")
        case.mkdir(parents=True)
        shutil.copy(file, case / "A.nii.gz")
        image = nib.load(file)
        other = nib.Nifti1Image(200 - 0.5 * np.asarray(image.dataobj), image.affine)
        nib.save(other, case / "B.nii.gz")
        shutil.copy(task_dir / "labelsTr" / file.name, case / "label.nii.gz")
    channels = {"A": "A.nii.gz", "B": "B.nii.gz"}
    structures = {"ball": 1, "box": 2}
    how: dict[str, Any] = {"channels": channels, "label": "label.nii.gz", "structures": structures}
    assert prepare(source, folder / "dataset", holdout=0.25, folds=3, **how) == 0
    settings = [*SMALL, "channel_dropout=0.3"]
    assert train(folder / "dataset", folder / "run", settings=settings, iterations=30, device="cpu") == 0
    return folder


def _zeroed(run: Path, item: dict[str, Any], channel: int) -> np.ndarray:
    """The labels of the model fed zeros in a channel after normalisation."""
    segmenter = Segmenter(run, device="cpu")
    data = segmenter.read(item)
    assert data["image"][channel].any()
    data["image"][channel] = 0
    return segmenter.segment(data)


@pytest.mark.parametrize(("there", "lacks"), [("A", "B"), ("B", "A")])
def test_a_subset_is_the_model_fed_zeros(two: Path, tmp_path: Path, there: str, lacks: str) -> None:
    case = two / "source" / "case_00"
    (tmp_path / "in" / "case_00").mkdir(parents=True)
    shutil.copy(case / f"{there}.nii.gz", tmp_path / "in" / "case_00" / f"{there}.nii.gz")
    assert predict(two / "run", [tmp_path / "in"], tmp_path / "out", device="cpu", lesions=True) == 0
    with (tmp_path / "out" / "structures.csv").open() as handle:
        assert {row["channel"] for row in csv.DictReader(handle)} == {there}
    row = json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"][0]
    assert row["missing_channels"] == [lacks]
    assert (
        f"segmented without {lacks}, which the scan lacks" in row["warning"]
    )  # in predictions.csv and on the page too
    whole = {"case": "x", "image": [str(case / "A.nii.gz"), str(case / "B.nii.gz")]}
    wanted = _zeroed(two / "run", whole, "AB".index(lacks))
    found = np.asarray(nib.load(tmp_path / "out" / row["output"]).dataobj)
    assert np.array_equal(found, wanted)


def test_the_bundle_does_the_same(two: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "case_01").mkdir(parents=True)
    shutil.copy(two / "source" / "case_01" / "B.nii.gz", tmp_path / "in" / "case_01" / "B.nii.gz")
    config = yaml.safe_load((two / "run" / "configs" / "inference.yaml").read_text())
    config |= {"dataset_dir": str(tmp_path / "in")}
    (data,) = build(config, "dataset")
    item = {"case": "case_01", "image": [str(tmp_path / "in" / "case_01" / "B.nii.gz")], "missing_channels": ["A"]}
    read = Segmenter(two / "run", device="cpu").read(item)
    assert np.array_equal(data["image"], read["image"])
    assert not data["image"][0].any()


def test_evaluate_leaves_channels_out(two: Path, tmp_path: Path) -> None:
    base = ["evaluate", str(two / "run"), str(two / "dataset"), "--device", "cpu"]
    done = CliRunner().invoke(cli, [*base, "--without", "B", "--output", str(tmp_path)])
    assert (done.exception, done.exit_code) == (None, 0)
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["context"]["missing_channels"] == ["B"]
    assert {row["missing_channels"] for row in told["cases"]} == {"B"}
    case = told["cases"][0]["case"]
    found = np.asarray(nib.load(tmp_path / "predictions" / f"{case}_seg.nii.gz").dataobj)
    files = [str(two / "source" / case / f"{name}.nii.gz") for name in "AB"]
    assert np.array_equal(found, _zeroed(two / "run", {"case": case, "image": files}, 1))


def test_a_dataset_that_lacks_a_channel_is_evaluated(two: Path, tmp_path: Path) -> None:
    """As with ``--without``, into a folder of its own; with the channels in any order."""
    how: dict[str, Any] = {"label": "label.nii.gz", "structures": {"ball": 1, "box": 2}, "holdout": 0.25, "folds": 3}
    assert prepare(two / "source", tmp_path / "only_B", channels={"B": "B.nii.gz"}, **how) == 0
    base = [
        "evaluate",
        str(two / "run"),
        str(tmp_path / "only_B"),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(cli, base)
    assert (done.exception, done.exit_code) == (None, 0)
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert told["context"]["missing_channels"] == ["A"]
    assert {row["missing_channels"] for row in told["cases"]} == {"A"}
    case = told["cases"][0]["case"]
    found = np.asarray(nib.load(tmp_path / "out" / "predictions" / f"{case}_seg.nii.gz").dataobj)
    files = [str(two / "source" / case / f"{name}.nii.gz") for name in "AB"]
    assert np.array_equal(found, _zeroed(two / "run", {"case": case, "image": files}, 0))
    with pytest.raises(RequestError, match="the scan has none of the channels"):
        evaluate(two / "run", tmp_path / "only_B", output=tmp_path / "none", device="cpu", without=["B"])


def test_a_dataset_that_lacks_what_the_run_needs_is_refused(two: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(two / "run", run)
    path = run / "configs" / "evaluate.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"required_channels": ["A"]}))
    data = json.loads((two / "dataset" / "dataset.json").read_text()) | {"root": str(two / "source")}
    for case in [*data["training"], *data["test"]]:
        case["image"] = case["image"][1:]
    data |= {"channels": ["B"], "channel_files": ["B.nii.gz"]}
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(RequestError, match=r"has \['B'\]; use its own dataset, or a run that may go without A"):
        evaluate(run, tmp_path, output=tmp_path / "out", device="cpu")


def test_cases_that_fail_without_a_channel_name_it_too(two: Path, tmp_path: Path) -> None:
    data = json.loads((two / "dataset" / "dataset.json").read_text())
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    data["test"][0]["image"][0] = str(tmp_path / "broken.nii.gz")
    data["root"] = str(two / "source")
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    assert evaluate(two / "run", tmp_path, output=tmp_path / "out", without=["B"], device="cpu") == 1
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(told["failed"]) == 1 and {row["missing_channels"] for row in told["cases"]} == {"B"}


def test_names_with_commas_stay_whole(two: Path) -> None:
    segmenter = Segmenter(two / "run", device="cpu")
    data = segmenter.read({"case": "x", "image": [str(two / "source" / "case_00" / f"{name}.nii.gz") for name in "AB"]})
    zero = ZeroMissingChannelsd("image", ["T1, Gd", "FLAIR"])
    lacking = zero({**data, "missing_channels": ["T1, Gd"]})
    assert not lacking["image"][0].any() and lacking["image"][1].any()
    assert segmenter.warned(lacking)["missing_channels"] == ["T1, Gd"]


def test_only_a_run_that_learnt_it_takes_a_subset(two: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(two / "run", run)
    for stage in ("evaluate", "inference"):
        path = run / "configs" / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"channel_dropout": 0.0}))
    (tmp_path / "in" / "case_00").mkdir(parents=True)
    shutil.copy(two / "source" / "case_00" / "A.nii.gz", tmp_path / "in" / "case_00" / "A.nii.gz")
    with pytest.raises(RequestError, match="no file is the channel B"):
        predict(run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    with pytest.raises(ValueError, match="trained without channel_dropout"):
        item = {"case": "x", "image": [str(tmp_path / "in" / "case_00" / "A.nii.gz")], "missing_channels": ["B"]}
        Segmenter(run, device="cpu").read(item)
