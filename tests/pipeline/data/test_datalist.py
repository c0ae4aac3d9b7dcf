from __future__ import annotations

from pathlib import Path

import pytest

from rarevox.pipeline.data.datalist import find_scans, section
from rarevox.pipeline.errors import RequestError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def cases(scans: list[dict[str, object]]) -> list[object]:
    return [scan["case"] for scan in scans]


def test_files_and_folders_of_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.nrrd", "c.v2.mha", "notes.txt", ".hidden.nii.gz")
    assert cases(find_scans(tmp_path)) == ["a", "b", "c.v2"]
    assert find_scans([tmp_path / "b.nrrd"]) == [{"case": "b", "image": str(tmp_path / "b.nrrd")}]


def test_numbered_files_are_channels(tmp_path: Path) -> None:
    touch(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "y_0001.nii.gz")
    scans = find_scans(tmp_path, ("T1", "FLAIR"))
    assert cases(scans) == ["x", "y"]
    assert scans[0]["image"] == [str(tmp_path / "x_0000.nii.gz"), str(tmp_path / "x_0001.nii.gz")]


def test_a_folder_for_each_case_with_channels_by_name_in_the_network_s_order(tmp_path: Path) -> None:
    touch(tmp_path, "p1/t1_x.nii.gz", "p1/flair_x.nii.gz", "p1/mask.nii.gz", "p2/FLAIR.nii", "p2/T1.nii")
    scans = find_scans(tmp_path, ("FLAIR", "T1"))
    assert cases(scans) == ["p1", "p2"]
    assert [Path(p).name for p in scans[0]["image"]] == ["flair_x.nii.gz", "t1_x.nii.gz"]


def test_dicom_series_in_folders(tmp_path: Path, data_dir: Path) -> None:
    assert cases(find_scans(data_dir / "dicom_sample")) == ["flair_oblique", "hippocampus_crop"]
    assert cases(find_scans(data_dir / "dicom_sample" / "flair_oblique")) == ["flair_oblique"]


def test_masks_are_found_by_the_scan_s_name(tmp_path: Path) -> None:
    touch(tmp_path / "scans", "a.nii.gz", "a_1.nii.gz", "b.nii", "c.nii.gz")
    names = ("a.nii.gz", "x/a_1_brainmask.nii", "b/the_Mask.nii.gz", "c_mask.nii", "c_mask2.nii")
    masks = touch(tmp_path / "masks", *names)
    scans = {scan["case"]: scan for scan in find_scans(tmp_path / "scans", masks=masks)}
    assert {case: Path(scan["mask"]).name for case, scan in scans.items() if "mask" in scan} == {
        "a": "a.nii.gz",
        "a_1": "a_1_brainmask.nii",
        "b": "the_Mask.nii.gz",
    }
    with pytest.raises(RequestError, match="no masks in"):
        find_scans(tmp_path / "scans", masks=touch(tmp_path / "nothing", "readme.txt"))


def test_a_mask_is_that_of_the_scan_whose_name_it_has_most_of(tmp_path: Path) -> None:
    """Scans of one patient at several times lie on one grid, so that nothing else would tell of another's mask."""
    touch(tmp_path / "scans", "ms_14.nii.gz", "ms_14_time2.nii.gz")
    masks = touch(tmp_path / "later", "ms_14_time2_mask.nii.gz")
    scans = {scan["case"]: scan for scan in find_scans(tmp_path / "scans", masks=masks)}
    assert "mask" not in scans["ms_14"]
    assert scans["ms_14_time2"]["mask"] == str(masks / "ms_14_time2_mask.nii.gz")
    masks = touch(tmp_path / "both", "ms_14_brain_mask.nii.gz", "ms_14_time2_mask.nii.gz")
    scans = {scan["case"]: scan for scan in find_scans(tmp_path / "scans", masks=masks)}
    assert [Path(scan["mask"]).name for scan in scans.values()] == [
        "ms_14_brain_mask.nii.gz",
        "ms_14_time2_mask.nii.gz",
    ]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        find_scans(tmp_path / "none")
    with pytest.raises(RequestError, match="no scans in"):
        find_scans(touch(tmp_path / "empty", "readme.txt"))
    touch(tmp_path, "one/a.nii.gz", "one/a.mha")
    with pytest.raises(RequestError, match="two scans are called a"):
        find_scans(tmp_path / "one")


def test_sections(dataset_dir: Path) -> None:
    train, validation, test = (section(dataset_dir, name) for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (4, 2, 2)
    assert not {case["case"] for case in train} & {case["case"] for case in validation + test}
    assert all(Path(case["image"]).is_file() for case in train)
    assert "reference" in section(dataset_dir, "test", reference_key="reference")[0]
    assert len(section(dataset_dir, "training", limit=3)) == 3
