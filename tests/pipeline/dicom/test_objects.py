"""Segmentations and reports: every voxel, volume and reference comes back by readers that are not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

hd = pytest.importorskip("highdicom", reason="needs the extra 'dicom'")
import pydicom  # noqa: E402

from rarevox.pipeline.dicom.report import Measured, report_of  # noqa: E402
from rarevox.pipeline.dicom.segmentation import KINDS, Maker, segmentation_of  # noqa: E402
from rarevox.pipeline.dicom.series import source_of, without_identifiers  # noqa: E402
from rarevox.transforms.reader import read_scan  # noqa: E402
from tests.pipeline.dicom.series import AXIAL, NUMBER, OBLIQUE, SAGITTAL, write, write_frames  # noqa: E402

STRUCTURES = {"lesion": 1, "left hippocampus": 4, "absent ball": 9}
MAKER = Maker("0.1.0", "abcdef0123456789")
GRIDS: Mapping[str, Mapping[str, Any]] = {
    "axial": {"orientation": AXIAL},
    "reversed": {"orientation": AXIAL, "backwards": True},
    "sagittal": {"orientation": SAGITTAL, "spacing_mm": (1.0, 1.0, 1.25)},
    "oblique": {"orientation": OBLIQUE, "backwards": True, "spacing_mm": (0.75, 1.5, 3.0)},
    "anisotropic": {"orientation": AXIAL, "spacing_mm": (0.5, 0.5, 6.5)},
}


def labels_of(shape: tuple[int, ...]) -> np.ndarray:
    """Two structures, neither symmetric in any axis; the first and last slice without any."""
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 3:6, 1:3] = 1
    labels[2, 3, 1] = 0
    labels[6:, 1:3, 3] = 4
    return labels


@pytest.fixture(params=GRIDS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    voxels = np.random.default_rng(0).integers(0, 500, (9, 7, 5))
    folder = write(tmp_path / "series", voxels, **GRIDS[request.param])
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.array[0], voxels)
    return {"scan": scan, "source": source_of(folder, scan.affine), "labels": labels_of(voxels.shape), "to": tmp_path}


def saved(made: Mapping[str, Any], kind: str) -> tuple[Path, Path]:
    ml = made["scan"].voxel_ml
    measured = {n: Measured(float((made["labels"] == value).sum()) * ml, 1) for n, value in STRUCTURES.items()}
    segmentation = segmentation_of(made["labels"], STRUCTURES, made["source"], MAKER, kind=kind)
    report = report_of(measured, segmentation, made["source"], MAKER)
    paths = made["to"] / "seg.dcm", made["to"] / "report.dcm"
    for path, one in zip(paths, (segmentation, report), strict=True):
        one.save_as(path)
    return paths


def as_ras(affine: np.ndarray) -> np.ndarray:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.mark.parametrize("kind", KINDS)
def test_every_voxel_comes_back_where_it_was(made: dict[str, Any], kind: str) -> None:
    """Of the volume that highdicom makes of the file, voxels by their place in the scan."""
    path, _ = saved(made, kind)
    segmentation = hd.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=True)
    found = np.zeros(made["labels"].shape, int)
    index = np.argwhere(volume.array > 0)
    places = np.linalg.inv(made["scan"].affine) @ as_ras(volume.affine) @ np.c_[index, np.ones(len(index))].T
    np.testing.assert_allclose(places[:3], np.round(places[:3]), atol=0.02)
    found[tuple(np.round(places[:3]).astype(int))] = volume.array[tuple(index.T)]
    expected = np.select([made["labels"] == value for value in STRUCTURES.values()], [1, 2, 3], 0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_all_structures_are_described_and_the_series_is_referred_to(made: dict[str, Any], kind: str) -> None:
    path, _ = saved(made, kind)
    data, source = pydicom.dcmread(path), made["source"]
    described = {one.SegmentNumber: one for one in data.SegmentSequence if one.SegmentNumber}
    assert [described[n].SegmentLabel for n in (1, 2, 3)] == list(STRUCTURES)
    assert described[2].SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"
    side = described[2].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert side.CodeMeaning == "Left"
    series = data.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == {
        one.SOPInstanceUID for one in source
    }
    assert data.PatientID == NUMBER
    assert data.StudyInstanceUID == source[0].StudyInstanceUID
    assert data.FrameOfReferenceUID == source[0].FrameOfReferenceUID


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_and_counts_come_back_from_the_report(made: dict[str, Any], kind: str) -> None:
    seg, path = saved(made, kind)
    report = hd.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    found = {}
    for group in groups:
        values = {one.name.meaning: (one.value, one.unit.value) for one in group.get_measurements()}
        found[group.tracking_identifier] = values
        assert group.referenced_segment.referenced_sop_instance_uid == pydicom.dcmread(seg).SOPInstanceUID
    voxels = {"lesion": 17, "left hippocampus": 6, "absent ball": 0}  # 3·3·2 − 1 and 3·2·1
    for name, count in voxels.items():
        volume, unit = found[name]["Volume"]
        # DS has 16 letters, of which "0." and an exponent may take six.
        assert (volume, unit) == (pytest.approx(count * made["scan"].voxel_ml, rel=1e-9), "ml")
        assert found[name]["Quantity"] == (1, "{counts}")
    uids = {one.TrackingUID for one in pydicom.dcmread(seg).SegmentSequence if one.SegmentNumber}
    assert {group.tracking_uid for group in groups} == uids


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian's dicom3tools)")
def test_dciodvfy_finds_no_error(made: dict[str, Any]) -> None:
    """Of binary ones: the program that distributions ship does not know label map segmentations yet."""
    for path in saved(made, "binary"):
        told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(shutil.which("segimage2itkimage") is None, reason="needs dcmqi")
def test_dcmqi_reads_every_voxel(made: dict[str, Any], kind: str) -> None:
    path, _ = saved(made, kind)
    (out := made["to"] / "out").mkdir()
    done = subprocess.run(
        ["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "-t", "nii"],
        capture_output=True,
        check=True,
    )
    assert done.returncode == 0
    attributes = json.loads((out / "meta.json").read_text())["segmentAttributes"]
    assert [one["SegmentLabel"] for part in attributes for one in part] == list(STRUCTURES)
    found = np.zeros(made["labels"].shape, int)
    for file in out.glob("*.nii.gz"):
        image = nib.load(file)
        array = np.asarray(image.dataobj).astype(int)
        index = np.argwhere(array)
        places = np.linalg.inv(made["scan"].affine) @ image.affine @ np.c_[index, np.ones(len(index))].T
        found[tuple(np.round(places[:3]).astype(int))] = array[tuple(index.T)]
    expected = np.select([made["labels"] == value for value in STRUCTURES.values()], [1, 2, 3], 0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 3, 1, 4]])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_file_of_frames_every_voxel_comes_back(tmp_path: Path, order: list[int], kind: str) -> None:
    path = write_frames(tmp_path / "frames.dcm", np.ones((9, 7, 5)), order, orientation=OBLIQUE, spacing_mm=(1, 1, 3))
    scan, labels = read_scan(path), labels_of((9, 7, 5))
    segmentation = segmentation_of(labels, STRUCTURES, source_of(path, scan.affine), MAKER, kind=kind)
    segmentation.save_as(tmp_path / "seg.dcm")
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    index = np.argwhere(volume.array > 0)
    places = np.linalg.inv(scan.affine) @ as_ras(volume.affine) @ np.c_[index, np.ones(len(index))].T
    found = np.zeros(labels.shape, int)
    found[tuple(np.round(places[:3]).astype(int))] = volume.array[tuple(index.T)]
    np.testing.assert_array_equal(found, np.select([labels == value for value in STRUCTURES.values()], [1, 2, 3], 0))


def test_a_map_without_anything_describes_everything(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", np.ones((4, 4, 3)))
    source = source_of(folder, read_scan(folder).affine)
    for kind in KINDS:
        made = segmentation_of(np.zeros((4, 4, 3), np.uint8), STRUCTURES, source, MAKER, kind=kind)
        assert [one.SegmentLabel for one in made.SegmentSequence if one.SegmentNumber] == list(STRUCTURES)
        assert not made.pixel_array.any()


def test_names_in_other_scripts_stay(tmp_path: Path) -> None:
    """The patient's in Cyrillic, stored in ISO 8859-5; a structure's in Greek."""
    folder = write(tmp_path / "series", np.ones((4, 4, 3)), SpecificCharacterSet="ISO_IR 144", PatientName="Люкceмбypг")
    source = source_of(folder, read_scan(folder).affine)
    made = segmentation_of(np.zeros((4, 4, 3), np.uint8), {"ήπαρ": 1}, source, MAKER)
    made.save_as(tmp_path / "seg.dcm")
    found = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (str(found.PatientName), found.SegmentSequence[0].SegmentLabel) == ("Люкceмбypг", "ήπαρ")


def test_what_files_lack_or_misspell_stops_nothing(tmp_path: Path, caplog: Any, recwarn: Any) -> None:
    strange = {"PatientName": "A=B=C=D=E", "PatientSex": "female", "PatientBirthDate": "7 June", "SeriesNumber": None}
    with pydicom.config.disable_value_validation():
        folder = write(tmp_path / "series", np.ones((4, 4, 3)), **strange)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        del data.StudyID, data.AccessionNumber, data.ReferringPhysicianName
        data.save_as(path)
    caplog.clear(), recwarn.clear()
    source = source_of(folder, read_scan(folder).affine)
    made = segmentation_of(np.zeros((4, 4, 3), np.uint8), STRUCTURES, source, MAKER)
    assert (made.SeriesNumber, made.PatientSex, made.StudyID) == (1000, "", "")
    assert not caplog.text
    assert not [str(one.message) for one in recwarn if "A=B" in str(one.message)]


def test_a_series_without_a_frame_of_reference_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", np.ones((4, 4, 3)), FrameOfReferenceUID="")
    with pytest.raises(ValueError, match="frame of reference"):
        source_of(folder, read_scan(folder).affine)


def test_a_series_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", np.ones((4, 4, 3)))
    affine = read_scan(folder).affine.copy()
    affine[0, 3] += 5
    with pytest.raises(ValueError, match="5 mm from where the scan has them"):
        source_of(folder, affine)


def test_labels_on_another_grid_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", np.ones((4, 4, 3)))
    source = source_of(folder, read_scan(folder).affine)
    with pytest.raises(ValueError, match=r"\(4, 4, 2\) voxels, the series \(4, 4, 3\)"):
        segmentation_of(np.zeros((4, 4, 2), np.uint8), STRUCTURES, source, MAKER)


def test_messages_lose_what_identifies() -> None:
    data = pydicom.Dataset()
    data.PatientName, data.PatientID = "Weatherwax^Esmerelda", NUMBER
    text = without_identifiers(f"bad value {NUMBER} of Esmerelda Weatherwax or Weatherwax^Esmerelda", data)
    assert text == "bad value … of … … or …"
