"""Series chosen from study trees: by rules, one folder or many, links where a folder holds several."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the extra 'dicom'")
from rarevox.pipeline.dicom.rules import parse_rule
from rarevox.pipeline.dicom.series import source_of
from rarevox.pipeline.dicom.study import series_in, survey_series
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.reader import ScanError, read_scan
from tests.pipeline.dicom.series import NAME, SAGITTAL, write, write_frames


def voxels(value: int, slices: int = 4) -> np.ndarray:
    return np.full((5, 4, slices), value) + np.arange(slices)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two studies: one with all its series in a folder and a file that is no image, one with a folder a series."""
    mixed = tmp_path / "tree" / "one" / "images"
    write(mixed, voxels(100), series=2, SeriesDescription=f"FLAIR 3D of {NAME}")
    write(mixed, voxels(200), series=3, SeriesDescription="T1 MPRAGE")
    write(mixed, voxels(300, 2), series=4, SeriesDescription="localiser, flair", orientation=SAGITTAL)
    for number, text in ((5, "t2 flair"), (6, "t1")):
        folder = tmp_path / "tree" / "two" / f"ser{number}"
        write(folder, voxels(100 * number), series=number, SeriesDescription=text, StudyInstanceUID="1.2.3")
    return tmp_path / "tree"


def test_each_series_that_fits_is_a_scan(tree: Path, tmp_path: Path) -> None:
    found = survey_series([tree], [parse_rule("modality=MR,description=flair,orientation=axial")], tmp_path / "links")
    assert [scan["case"] for scan in found.scans] == ["one_images_s2", "two_ser5"]
    for scan, value in zip(found.scans, (100, 500), strict=True):
        read = read_scan(scan["image"])
        np.testing.assert_array_equal(read.array[0], voxels(value))
        assert len(source_of(scan["image"], read.affine)) == 4
    assert found.scans[1]["image"] == str(tree / "two" / "ser5")  # a folder of its own needs no links
    assert not found.left
    assert "Weatherwax" not in str(found)


def test_where_none_fits_reasons_are_told(tree: Path, tmp_path: Path) -> None:
    found = survey_series([tree / "one"], [parse_rule("orientation=axial,min-slices=5")], tmp_path / "links")
    assert not found.scans
    (row,) = found.left
    assert (row["case"], row["status"]) == ("one", "failed")
    assert row["reason"].endswith(
        "fits --series (series 2: it has 4 slices, fewer than 5; series 3: it has 4 slices, fewer than 5; "
        "series 4: its slices are sagittal, not axial)"
    )
    assert "Weatherwax" not in str(found)


def test_with_a_rule_for_each_channel_a_study_is_a_scan(tree: Path, tmp_path: Path) -> None:
    rules = [parse_rule("description=flair,min-slices=3"), parse_rule("description=t1")]
    found = survey_series([tree], rules, tmp_path / "links")
    assert [scan["case"] for scan in found.scans] == ["one_images", "two"]
    read = read_scan(found.scans[0]["image"])
    np.testing.assert_array_equal(read.array, np.stack([voxels(100), voxels(200)]))
    assert not found.left


def test_a_study_without_one_series_for_each_rule_is_told(tree: Path, tmp_path: Path) -> None:
    rules = [parse_rule("description=flair"), parse_rule("modality=CT")]
    found = survey_series([tree / "one"], rules, tmp_path / "links")
    assert not found.scans
    (row,) = found.left
    assert row["status"] == "failed"
    assert "2 series fit --series number 1 (series 2, 4); no series fit --series number 2" in row["reason"]


def test_scans_of_other_formats_beside_series_are_told(tree: Path, tmp_path: Path) -> None:
    (tree / "two" / "p7").mkdir()
    (tree / "two" / "p7" / "flair.nii.gz").write_bytes(b"")
    (tree / "two" / "._p7.nii.gz").write_bytes(b"")
    (tree / "table.csv").write_text("")
    (tree / "out").mkdir()  # of an earlier call, named from the working directory
    out = Path(os.path.relpath(tree / "out"))
    (tree / "out" / "one_seg.nii.gz").write_bytes(b"")
    found = survey_series([tree], [parse_rule("description=flair,orientation=axial")], out / ".series")
    assert [scan["case"] for scan in found.scans] == ["one_images_s2", "two_ser5"]
    (row,) = found.left
    assert (row["case"], row["status"]) == ("two_p7_flair.nii.gz", "ignored")
    assert row["reason"].endswith(
        "flair.nii.gz is no DICOM, and --series looks for series alone; name it in a call without --series"
    )


def test_links_are_made_anew_where_series_changed(tree: Path, tmp_path: Path) -> None:
    for number, value in ((2, 100), (3, 200)):
        found = survey_series([tree / "one"], [parse_rule(f"number={number}")], tmp_path / "links")
        scan = found.scans[0]
        np.testing.assert_array_equal(read_scan(scan["image"]).array[0], voxels(value))
        old = tmp_path / "links" / "images_s2"
        (old / "000001.dcm").unlink(missing_ok=True)
        survey_series([tree / "one"], [parse_rule("number=2")], tmp_path / "links")
        np.testing.assert_array_equal(read_scan(old).array[0], voxels(100))


def test_frames_and_damaged_files(tmp_path: Path) -> None:
    write_frames(tmp_path / "in" / "frames.dcm", np.ones((9, 7, 4)), [0, 1, 2, 3])
    (tmp_path / "in" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x00" * 40)
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    found = survey_series([tmp_path / "in"], [parse_rule("min-slices=4")], tmp_path / "links")
    assert [scan["image"] for scan in found.scans] == [str(tmp_path / "in" / "frames.dcm")]
    assert (series_in(tmp_path / "in")[0].slices, series_in(tmp_path / "in")[0].orientation) == (4, "axial")
    empty = survey_series(
        [tmp_path / "nowhere", tmp_path / "in" / "notes.txt"], [parse_rule("number=1")], tmp_path / "l"
    )
    assert [row["status"] for row in empty.left] == ["failed", "failed"]


def test_missing_slices_are_the_readers_to_refuse(tmp_path: Path) -> None:
    write(tmp_path / "in", voxels(1, 6), series=2)
    write(tmp_path / "in", voxels(2, 6), series=3)
    (tmp_path / "in" / "IM20003.dcm").unlink()
    scan = survey_series([tmp_path / "in"], [parse_rule("number=2")], tmp_path / "links").scans[0]
    with pytest.raises(ScanError, match="slices are missing"):
        read_scan(scan["image"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour=red", "no key is called 'colour': valid names: description"),
        ("modality=", "is not KEY=VALUE"),
        ("min-slices=many", "is a whole number"),
        ("description=(", "no regular expression"),
        ("orientation=up", "one of sagittal, coronal, axial"),
        ("number=1,number=2", "names number twice"),
    ],
)
def test_rules_of_another_form_are_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_rule(text)


def test_a_description_may_hold_commas() -> None:
    rule = parse_rule("description=a{1,2},b,modality=mr")
    assert (rule.description and rule.description.pattern, rule.modality) == ("a{1,2},b", "MR")
