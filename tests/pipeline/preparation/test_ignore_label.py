"""nnU-Net's label ``ignore``: voxels that nobody annotated are no structure, and are never taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.dataset import Dataset
from pipeline.errors import RequestError
from pipeline.preparation.prepare import prepare
from tests.conftest import write_task


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """The synthetic cases as nnU-Net writes them, with a label ``ignore`` = 3; one case has 8 such voxels."""
    folder = write_task(tmp_path / "task")
    for image in (folder / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".nii.gz", "_0000.nii.gz")))
    labels = {"background": 0, "ball": 1, "box": 2, "ignore": 3}
    content = {"channel_names": {"0": "noise"}, "labels": labels, "numTraining": 8, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    path = folder / "labelsTr" / "case_02.nii.gz"
    volume = nib.load(path)
    array = np.array(volume.dataobj)
    array[-2:, -2:, -2:] = 3
    nib.save(nib.Nifti1Image(array, volume.affine), path)
    return folder


def test_a_case_with_ignored_voxels_is_refused_and_the_others_are_used(task: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="1 of 8 cases have errors"):
        prepare(task, tmp_path / "out", folds=3)
    (fault,) = json.loads((tmp_path / "out" / "rejected.json").read_text())["faults"]
    assert (fault["case"], fault["check"], fault["severity"]) == ("case_02", "label-ignored", "error")
    assert fault["message"].startswith('8 voxels have the label "ignore" (3): nobody annotated them')
    assert prepare(task, tmp_path / "out", folds=3, skip_faulty=True) == 1
    data = Dataset.load(tmp_path / "out")
    assert data.labels == {"background": 0, "ball": 1, "box": 2}
    assert len(data.training) + len(data.test) == 7


def test_a_value_that_is_named_on_the_command_line_is_a_structure(task: Path, tmp_path: Path) -> None:
    assert prepare(task, tmp_path / "out", folds=3, structures={"ball": 1, "box": 2, "corner": 3}) == 0
    assert Dataset.load(tmp_path / "out").structures == ("ball", "box", "corner")


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
