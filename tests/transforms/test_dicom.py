"""DICOM series: placed in space as hand-derived, refused where the slices are not one even stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rarevox.transforms.reader import ScanError, read_scan
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
