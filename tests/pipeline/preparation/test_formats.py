"""Every format of a scan, through prepare: one content, one hash; unusable DICOM folders have their reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rarevox.pipeline.data.formats import SUFFIXES
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.transforms.reader import read_scan
from tests.pipeline.data.test_formats import write
from tests.pipeline.preparation.test_prepare import written
from tests.transforms.test_dicom import COLUMN, NORMAL, write_series


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, (7, 6, 5)).astype(np.int16)


def label_of(voxels: np.ndarray) -> np.ndarray:
    label = np.zeros(voxels.shape, np.uint8)
    label[2:4, 2:4, 2] = 1
    return label


def test_all_formats_are_one_scan(tmp_path: Path, voxels: np.ndarray) -> None:
    """An oblique DICOM series, and the same voxels in every file format with labels in another one."""
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    affine = read_scan(write_series(source / "images" / "dicom", voxels)).affine
    write(source / "labels" / "dicom.nrrd", label_of(voxels), affine)
    for number, suffix in enumerate(SUFFIXES):
        write(source / "images" / f"c{number}{suffix}", voxels, affine)
        write(source / "labels" / f"c{number}{SUFFIXES[number - 1]}", label_of(voxels), affine)
    assert prepare(source, tmp_path / "out", holdout=0, folds=1) == 0
    rows = written(tmp_path / "out", "fingerprint.json")["per_case"]
    assert len(rows) == len(SUFFIXES) + 1
    assert len({row["sha256"] for row in rows}) == 1
    faults = written(tmp_path / "out", "rejected.json")["faults"]
    assert {(row["case"], row["check"]) for row in faults} == {
        (name, "duplicate-content") for name in ("dicom", *(f"c{number}" for number in range(1, len(SUFFIXES))))
    }


def test_an_unusable_series_is_told_with_its_reason(tmp_path: Path, voxels: np.ndarray) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    place = source / "images"
    steps = np.arange(5)[:, None]
    write_series(place / "good", voxels)
    write_series(place / "gap", voxels, np.array([0, 1, 2, 4, 5])[:, None] * 2.5 * NORMAL)
    write_series(place / "tilt", voxels, steps * (2.5 * NORMAL + 0.5 * COLUMN))
    write_series(write_series(place / "mixed", voxels), voxels, series="1.2.4", prefix="t")
    affine = read_scan(place / "good").affine
    for name in ("good", "gap", "tilt", "mixed"):
        write(source / "labels" / f"{name}.nii.gz", label_of(voxels), affine)
    with pytest.raises(RequestError, match="3 of 4 cases have errors"):
        prepare(source, tmp_path / "out")
    found = {row["case"]: row for row in written(tmp_path / "out", "rejected.json")["faults"]}
    assert {row["check"] for row in found.values()} == {"dicom-series"}
    assert "slices are missing" in found["gap"]["message"]
    assert "gantry tilt" in found["tilt"]["message"]
    assert "expected one DICOM series" in found["mixed"]["message"]
