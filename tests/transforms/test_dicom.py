"""DICOM series: placed in space as hand-derived, refused where the slices are not one even stack."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rarevox.transforms.dicom import is_dicom_file, is_dicom_folder
from rarevox.transforms.reader import ScanError, read_scan
from rarevox.transforms.reading.slices import read_slice
from tests.transforms.series import COLUMN, NORMAL, ROW, write_series


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)


def test_an_oblique_series_lies_where_its_tags_say(tmp_path: Path, voxels: np.ndarray) -> None:
    scan = read_scan(write_series(tmp_path / "a", voxels))
    np.testing.assert_array_equal(scan.array[0], voxels)
    assert scan.spacing_mm == pytest.approx((0.8, 1.2, 2.5), abs=1e-4)
    # RAS of voxel (i, j, k): LPS position + 0.8·i·row + 1.2·j·column + 2.5·k·normal, with x and y negated.
    lps = np.array([5.0, -7.0, 11.0]) + 0.8 * 2 * ROW + 1.2 * 3 * COLUMN + 2.5 * 1 * NORMAL
    np.testing.assert_allclose(scan.affine @ [2, 3, 1, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-3)
    assert scan.header is None


def test_a_missing_slice_is_named(tmp_path: Path, voxels: np.ndarray) -> None:
    places = np.array([0, 1, 3, 4])[:, None] * 2.5 * NORMAL
    with pytest.raises(ScanError, match=r"slices are missing .*: 5 mm between slices 2 and 3, 2\.5 mm") as caught:
        read_scan(write_series(tmp_path / "a", voxels, places))
    assert caught.value.check == "dicom-series"


def test_gantry_tilt_is_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    places = np.arange(4)[:, None] * (2.5 * NORMAL + 0.5 * COLUMN)
    with pytest.raises(ScanError, match=r"gantry tilt \(slices slide by 0\.5 mm\)"):
        read_scan(write_series(tmp_path / "a", voxels, places))


def test_two_series_in_a_folder_are_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    folder = write_series(tmp_path / "a", voxels)
    write_series(folder, voxels, series="1.2.4", prefix="t")
    with pytest.raises(ScanError, match=r"expected one DICOM series .* found 2"):
        read_scan(folder)


def test_repeated_positions_are_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    places = np.array([0, 1, 1, 2])[:, None] * 2.5 * NORMAL
    with pytest.raises(ScanError, match="several slices at one position"):
        read_scan(write_series(tmp_path / "a", voxels, places))


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(ScanError, match="holds no DICOM files"):
        read_scan(tmp_path)


def test_real_series(data_dir: Path) -> None:
    scan = read_scan(data_dir / "dicom_sample" / "flair_oblique")
    assert scan.shape[2] == 22
    assert scan.spacing_mm == pytest.approx((0.6875, 0.6875, 6.5), abs=1e-3)


def test_slopes_that_differ_between_slices_keep_their_fractions(tmp_path: Path) -> None:
    """Slices of PET have slopes of their own; the first one's is 1 here, so that its voxels are whole numbers."""
    sevens = np.full((6, 5, 4), 7, np.int16)
    folder = write_series(tmp_path / "a", sevens, tags={"0028|1052": "0", "0028|1053": "1.00"})
    for path in folder.iterdir():
        if read_slice(path).tags["number"] == "3":
            content = path.read_bytes()
            at, tag = content.index(b"\x28\x00\x53\x10"), b"\x28\x00\x53\x10"  # RescaleSlope
            end = at + 8 + content[at + 4]
            path.write_bytes(content[:at] + tag + b"\x04\x00\x00\x000.50" + content[end:])
    assert read_scan(folder).array[0, 0, 0].tolist() == [7, 7, 3.5, 7]


def test_what_is_dicom_is_told_by_content_or_a_suffix(tmp_path: Path, voxels: np.ndarray) -> None:
    slice_ = next(write_series(tmp_path / "a", voxels).iterdir())
    for name in ("IM0001", "1.2.3.4", "x.IMA", "x.image"):
        path = slice_.rename(tmp_path / name)
        assert is_dicom_file(path)
        slice_ = path
    for name, content in (("x.dcm", b""), ("y.DICOM", b"text"), ("z.ima", b"text")):
        (tmp_path / name).write_bytes(content)
        assert is_dicom_file(tmp_path / name)
    for name, content in (("README", b"text"), ("a.nii.gz", b"\x1f\x8b"), ("._x.dcm", b"\x00\x05\x16\x07"), ("e", b"")):
        (tmp_path / name).write_bytes(content)
        assert not is_dicom_file(tmp_path / name)
    assert not is_dicom_file(tmp_path)


def test_a_pipe_is_not_opened_to_see_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "IM0001")
    assert not is_dicom_file(tmp_path / "IM0001")
    assert not is_dicom_folder(tmp_path)
    os.mkfifo(tmp_path / "x.dcm")
    assert is_dicom_folder(tmp_path)  # it claims to be, and fails with its name
    with pytest.raises(ScanError, match=r"x\.dcm in .* is a named pipe"):
        read_scan(tmp_path)


def test_a_file_without_a_preamble_is_dicom_all_the_same(tmp_path: Path, voxels: np.ndarray) -> None:
    """Of the days before the mark: the data set alone, without preamble and first group."""
    folder = write_series(tmp_path / "a", voxels)
    for number, path in enumerate(sorted(folder.iterdir())):
        content = path.read_bytes()
        path.write_bytes(content[content.index(b"\x08\x00\x16\x00") :])  # from SOPClassUID on
        path.rename(path.with_name(f"IM{number}"))
    assert is_dicom_folder(folder)
    np.testing.assert_array_equal(read_scan(folder).array[0], voxels)
