"""Outputs for people and hospitals, written of a result as `predict` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.pipeline.inference.atlas import read_atlas
from rarevox.pipeline.inference.outputs.dicom import NO_SERIES, DicomObjects
from rarevox.pipeline.inference.outputs.lesions import Lesions
from rarevox.pipeline.inference.outputs.output import Result, names_of, watches_of, write_all
from rarevox.pipeline.inference.outputs.preview import HEIGHT, Preview
from rarevox.pipeline.inference.segment import Segmentation
from rarevox.transforms.reader import read_grid

STRUCTURES = {"lesion": 1, "hippocampus": 4}


def result_of(image: Path, labels: np.ndarray, case: str = "a") -> Result:
    item = {"case": case, "image": str(image)}
    return Result(Segmentation(item, labels), read_grid(image), STRUCTURES, made={"models": ["0123456789abcdef"]})


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((9, 7, 5), np.uint8)
    labels[2:5, 3:6, 1:3] = 1
    labels[7, 1, 1] = 1
    labels[6:, 4:6, 3] = 4
    return labels


@pytest.fixture
def nifti(tmp_path: Path, labels: np.ndarray) -> Path:
    voxels = np.random.default_rng(0).normal(100, 10, labels.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def test_tables_tell_of_every_lesion(tmp_path: Path, nifti: Path, labels: np.ndarray) -> None:
    nib.save(nib.Nifti1Image((labels == 4).astype(np.int16) * 3, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "atlas.nii")
    output = Lesions(list(STRUCTURES), ["t1"], probabilities=True, atlas=read_atlas(tmp_path / "atlas.nii"))
    result = result_of(nifti, labels)
    result.found.watch = watches = watches_of([output], result.item, tmp_path)
    assert watches is not None
    watches.begin(labels.shape)
    shares = np.stack([np.full(labels.shape, share) for share in (0.125, 0.75, 0.125)])
    watches.take(torch.from_numpy(shares).log(), tuple(slice(0, n) for n in labels.shape))
    tables = write_all([output], result, tmp_path)["tables"]
    found = [(row["structure"], row["number"], row["voxels"], row["region"]) for row in tables["lesions"]]
    assert found == [("lesion", 1, 18, ""), ("lesion", 2, 1, ""), ("hippocampus", 1, 6, "3")]
    assert [row["peak_probability"] for row in tables["lesions"]] == [0.75, 0.75, 0.125]
    image = np.asarray(nib.load(nifti).dataobj)
    for row in tables["structures"]:
        assert row["channel"] == "t1"
        assert row["mean"] == pytest.approx(
            image[labels == STRUCTURES[row["structure"]]].mean(), rel=1e-5
        )  # six digits


def test_a_preview_is_a_picture(tmp_path: Path, nifti: Path, labels: np.ndarray) -> None:
    from PIL import Image

    row = write_all([Preview()], result_of(nifti, labels), tmp_path)
    assert row["files"] == ["a_preview.jpg"] == names_of([Preview()], {"case": "a", "image": str(nifti)})
    with Image.open(tmp_path / "a_preview.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.height > HEIGHT, "a legend below the planes"


def test_dicom_objects_are_written_of_series_alone(tmp_path: Path, nifti: Path, labels: np.ndarray) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs the extra 'dicom'")
    from tests.pipeline.dicom.series import NAME, NUMBER, write

    folder = write(tmp_path / "series", np.random.default_rng(0).integers(0, 99, labels.shape))
    out = tmp_path / "out"
    out.mkdir()
    row = write_all([DicomObjects()], result_of(folder, labels), out)
    assert row["files"] == ["a_seg.dcm", "a_report.dcm"] == [row["dicom"]["segmentation"], row["dicom"]["report"]]
    assert {pydicom.dcmread(out / name).PatientID for name in row["files"]} == {NUMBER}
    assert not any(word in str(row) for word in (NAME, NUMBER, "Weatherwax"))
    assert write_all([DicomObjects()], result_of(nifti, labels), out) == {"dicom": NO_SERIES}
    assert names_of([DicomObjects()], {"case": "a", "image": str(nifti)}) == []


def test_a_series_of_which_no_objects_can_be_made_fails_without_names(
    tmp_path: Path, labels: np.ndarray, monkeypatch: Any
) -> None:
    pytest.importorskip("pydicom", reason="needs the extra 'dicom'")
    from tests.pipeline.dicom.series import NUMBER, write

    def quotes(*_: object, **__: object) -> None:
        raise RuntimeError(f"{NUMBER} is no good")

    monkeypatch.setattr("rarevox.pipeline.inference.outputs.dicom.segmentation_of", quotes)
    folder = write(tmp_path / "series", np.ones(labels.shape))
    with pytest.raises(ValueError, match="no DICOM objects can be made of its series: … is no good"):
        write_all([DicomObjects()], result_of(folder, labels), tmp_path)
