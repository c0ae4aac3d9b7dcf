"""Voxels that nobody annotated (nnU-Net's ``ignore``) are no structure, and count in neither training nor scores."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.score import score
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.storage.prepare_case import compact
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL, write_task

LABELS = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


def _as_nnunet(folder: Path, labels: dict[str, object] | None = None) -> Path:
    for image in (folder / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".nii.gz", "_0000.nii.gz")))
    content = {"channel_names": {"0": "noise"}, "labels": labels or LABELS, "numTraining": 8, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _paint(path: Path, where: tuple[slice, ...], value: int) -> None:
    volume = nib.load(path)
    array = np.array(volume.dataobj)
    array[where] = value
    nib.save(nib.Nifti1Image(array, volume.affine), path)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """The synthetic cases as nnU-Net writes them, with a label ``ignore`` = 3; one case has 8 such voxels."""
    folder = _as_nnunet(write_task(tmp_path / "task"))
    _paint(folder / "labelsTr" / "case_02.nii.gz", (slice(-2, None),) * 3, 3)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of which the upper slices of every case are not annotated."""
    folder = tmp_path_factory.mktemp("half")
    task = _as_nnunet(write_task(folder / "task"))
    for path in (task / "labelsTr").iterdir():
        _paint(path, (slice(None), slice(None), slice(12, None)), 3)
    assert prepare(task, folder / "dataset", holdout=0.25, folds=3) == 0
    return folder / "dataset"


def test_ignored_voxels_are_no_structure_and_are_told(task: Path, tmp_path: Path) -> None:
    assert prepare(task, tmp_path / "out", folds=3) == 0
    (fault,) = json.loads((tmp_path / "out" / "rejected.json").read_text())["faults"]
    assert (fault["case"], fault["check"], fault["severity"]) == ("case_02", "label-ignored", "warning")
    assert fault["message"] == "nobody annotated 0.101 % of the voxels (label 3): they count for nothing"  # 8 of 7920
    data = Dataset.load(tmp_path / "out")
    assert data.labels == {"background": 0, "ball": 1, "box": 2}
    assert data.ignored == 3
    facts = json.loads((tmp_path / "out" / "fingerprint.json").read_text())
    assert facts["ignored_share"]["median"] == pytest.approx(8 / 7920)
    assert all("3" not in case["structures"] for case in facts["per_case"])


def test_a_case_that_nobody_annotated_is_refused(task: Path, tmp_path: Path) -> None:
    _paint(task / "labelsTr" / "case_02.nii.gz", (slice(None),) * 3, 3)
    with pytest.raises(RequestError, match="1 of 8 cases have errors"):
        prepare(task, tmp_path / "out", folds=3)
    faults = json.loads((tmp_path / "out" / "rejected.json").read_text())["faults"]
    assert ("case_02", "nothing-annotated") in {(fault["case"], fault["check"]) for fault in faults}


def test_what_lies_in_the_ignored_part_changes_no_figure_of_the_structures(half: Path, tmp_path: Path) -> None:
    """The same cases with the structures simply cut off have the same figures, but for the hash."""
    task = _as_nnunet(write_task(tmp_path / "task"))
    for path in (task / "labelsTr").iterdir():
        _paint(path, (slice(None), slice(None), slice(12, None)), 0)
    assert prepare(task, tmp_path / "cut", holdout=0.25, folds=3) == 0
    one, other = (json.loads((folder / "fingerprint.json").read_text()) for folder in (half, tmp_path / "cut"))
    for name, structure in one["structures"].items():
        share, whole = structure.pop("share"), other["structures"][name].pop("share")
        assert share["median"] == pytest.approx(whole["median"] * 18 / 12)  # of the annotated 12 of 18 slices
        del structure["imbalance"], other["structures"][name]["imbalance"]
    assert one["structures"] == other["structures"]
    assert one["channels"] == other["channels"]
    assert one["sha256"] != other["sha256"]


def test_any_label_can_be_named_as_ignored(tmp_path: Path) -> None:
    task = write_task(tmp_path / "task")
    (task / "dataset.json").unlink()
    found = {"images": "imagesTr", "labels": "labelsTr", "folds": 3}
    assert prepare(task, tmp_path / "out", ignore=2, **found) == 0
    data = Dataset.load(tmp_path / "out")
    assert (data.structures, data.ignored) == (("label_1",), 2)
    for wrong, structures in ((0, None), (1, {"ball": 1})):
        with pytest.raises(RequestError, match=f"--ignore is {wrong}; expected a label value that is neither"):
            prepare(task, tmp_path / "out", ignore=wrong, structures=structures, **found)


def test_a_value_that_is_named_on_the_command_line_is_a_structure(task: Path, tmp_path: Path) -> None:
    assert prepare(task, tmp_path / "out", folds=3, structures={"ball": 1, "box": 2, "corner": 3}) == 0
    data = Dataset.load(tmp_path / "out")
    assert (data.structures, data.ignored) == (("ball", "box", "corner"), None)


def test_in_the_spelling_of_decathlon_it_is_a_name_like_others(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "ball", "2": "ignore"}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert prepare(folder, tmp_path / "out", folds=3) == 0
    assert Dataset.load(tmp_path / "out").structures == ("ball", "ignore")


@pytest.mark.parametrize("value", [1, "3", [3, 4]])
def test_an_ignore_label_that_is_not_the_highest_value_is_refused(value: object, task: Path, tmp_path: Path) -> None:
    content = json.loads((task / "dataset.json").read_text())
    content["labels"] = {"background": 0, "ball": 1, "box": 2, "ignore": value}
    (task / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match='label "ignore" in .* is .*; as nnU-Net.s mark'):
        prepare(task, tmp_path / "out", folds=3)


@pytest.mark.parametrize("loss", ["gdl_ce", "component_dice_ce", "wce", "dice_topk"])
def test_the_loss_of_a_configuration_leaves_the_ignored_part_out(half: Path, loss: str) -> None:
    """Logits in the ignored part get no gradient, and whatever they are the loss is the same."""
    config = compose("train", dataset=Dataset.load(half), loss=loss).config
    case = Dataset.load(half).section("training")[0]
    labels = compact(build(config, "train#deterministic_transforms")(case))["label"][None]
    logits = torch.randn(1, 3, *labels.shape[2:], requires_grad=True)
    value = build(config, "loss")(logits, labels)
    value.backward()
    ignored = labels[:, :1] == 255
    assert 0.2 < float(ignored.float().mean()) < 0.5
    assert not bool(logits.grad[ignored.expand_as(logits)].any())
    assert bool(logits.grad[~ignored.expand_as(logits)].any())
    changed = logits.detach() + 9 * ignored
    torch.testing.assert_close(build(config, "loss")(changed, labels), value.detach())


def test_a_loss_that_would_learn_from_the_ignored_part_is_refused(half: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("loss: { _target_: rarevox.losses.DiceCELoss }\n")
    with pytest.raises(RequestError, match=r"DiceCELoss would learn from voxels that nobody annotated \(label 3\)"):
        train(half, tmp_path / "run", config_files=[own], settings=SMALL, iterations=2, device="cpu")


def test_from_training_to_scores(half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, evaluate, calibrate and tune; a prediction's ignored part is worth nothing anywhere."""
    run = tmp_path / "run"
    assert train(half, run, settings=SMALL, iterations=60, device="cpu") == 0
    drawn = json.loads((run / "logs" / "patches.json").read_text())
    assert drawn["without_foreground"] == 0
    assert evaluate(run, half, device="cpu") == 0
    result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert result["conventions"]["ignored_value"] == 3
    assert result["mean_dice"] > 0.5
    voxels = result["calibration"]["structures"]["ball"]["image"]["voxels"]
    assert voxels == 2 * 22 * 20 * 12  # of two cases the annotated part
    assert tune_post_processing(run, half, device="cpu") == 0
    try:
        assert calibrate(run, half, device="cpu") == 0
    except RequestError as error:
        assert "told apart" in str(error)
    # Whatever a prediction says where nobody annotated, `score` gives the same.
    predictions, references = run / "evaluation" / "test" / "predictions", half.parent / "task" / "labelsTr"
    found = []
    for name, value in (("as_it_is", None), ("changed", 1)):
        (tmp_path / name / "seg").mkdir(parents=True)
        (tmp_path / name / "ref").mkdir()
        for path in predictions.glob("*.nii.gz"):
            volume = nib.load(path)
            array = np.array(volume.dataobj)
            if value is not None:
                array[:, :, 12:] = value
            nib.save(nib.Nifti1Image(array, volume.affine), tmp_path / name / "seg" / path.name)
            reference = references / path.name.replace("_seg", "")
            nib.save(nib.load(reference), tmp_path / name / "ref" / reference.name)
        folders = tmp_path / name / "seg", tmp_path / name / "ref", tmp_path / name / "out"
        assert score(*folders, dataset=half, report=False) == 0
        found.append(json.loads((tmp_path / name / "out" / "metrics.json").read_text()))
    assert found[0]["cases"] == found[1]["cases"]
    assert found[0]["mean_dice"] == pytest.approx(result["mean_dice"])
