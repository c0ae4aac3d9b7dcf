"""DICOM in its other forms: compressed pixels, several frames in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

pydicom = pytest.importorskip("pydicom", reason="needs the extra 'dicom'")
pytest.importorskip("highdicom", reason="needs the extra 'dicom'")
from pydicom import uid  # noqa: E402

from rarevox.transforms.reader import ScanError, read_scan  # noqa: E402
from tests.pipeline.dicom.series import OBLIQUE, write, write_frames  # noqa: E402

VOXELS = np.random.default_rng(0).integers(-500, 500, (40, 36, 3))
GRID: Any = {"orientation": OBLIQUE, "spacing_mm": (0.75, 1.5, 3.0)}


def compressed(folder: Path, name: str) -> Path:
    """A series with its pixels compressed: by pydicom, or by GDCM's writer where pydicom has no encoder."""
    write(folder, VOXELS, **GRID)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        if name == "JPEGLosslessSV1":
            image = SimpleITK.ReadImage(str(path))
            writer = SimpleITK.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetUseCompression(True)
            writer.SetCompressor("JPEG")
            writer.SetFileName(str(folder.parent / "one.dcm"))
            writer.Execute(image)
            other = pydicom.dcmread(folder.parent / "one.dcm")
            data.PixelData, data.file_meta.TransferSyntaxUID = other.PixelData, other.file_meta.TransferSyntaxUID
        elif name == "DeflatedExplicitVRLittleEndian":
            data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        else:
            data.compress(getattr(uid, name), generate_instance_uid=False)
        assert data.file_meta.TransferSyntaxUID == getattr(uid, name)
        data.save_as(path)
    return folder


KINDS = ("RLELossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless", "DeflatedExplicitVRLittleEndian")


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_pixels_are_those_that_were_stored(tmp_path: Path, kind: str) -> None:
    plain = read_scan(write(tmp_path / "plain", VOXELS, **GRID))
    try:
        folder = compressed(tmp_path / "packed", kind)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"no encoder of {kind} here: {error}")
    found = read_scan(folder)
    np.testing.assert_array_equal(found.array, plain.array)
    np.testing.assert_array_equal(found.affine, plain.affine)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_where_gdcm_fails_others_decode(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices with a slope: the other way must apply it too, and place them to rounding as ITK does."""
    plain = read_scan(write(tmp_path / "plain", VOXELS, **GRID, RescaleSlope="2", RescaleIntercept="-3"))
    try:
        folder = compressed(tmp_path / "packed", kind)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"no encoder of {kind} here: {error}")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.RescaleSlope, data.RescaleIntercept = "2", "-3"
        data.save_as(path)

    def fails(_: object) -> None:
        raise RuntimeError("no codec")

    monkeypatch.setattr(SimpleITK.ImageSeriesReader, "Execute", fails)
    found = read_scan(folder)
    np.testing.assert_array_equal(found.array, plain.array)
    np.testing.assert_allclose(found.affine, plain.affine, atol=1e-6)  # positions have ten digits


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_frames_lie_where_each_says(tmp_path: Path, order: list[int]) -> None:
    """As slices of a series with the same positions, whatever their order in the file."""
    voxels = np.random.default_rng(1).integers(0, 500, (9, 7, 4))
    series = read_scan(write(tmp_path / "series", voxels, **GRID))
    for found in (
        read_scan(write_frames(tmp_path / "frames.dcm", voxels, order, **GRID)),
        read_scan(write_frames(tmp_path / "folder" / "frames.dcm", voxels, order, **GRID).parent),
    ):
        np.testing.assert_array_equal(found.array, 2 * series.array - 1)
        np.testing.assert_allclose(found.affine, series.affine, atol=1e-6)  # positions have ten digits


@pytest.mark.parametrize(("order", "said"), [([0, 1, 3], "some are missing"), ([0, 0, 1, 1], "several frames at one")])
def test_frames_that_are_no_stack_are_refused(tmp_path: Path, order: list[int], said: str) -> None:
    voxels = np.ones((9, 7, 4))
    with pytest.raises(ScanError, match=said):
        read_scan(write_frames(tmp_path / "frames.dcm", voxels, order))


def test_frames_without_highdicom_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_frames(tmp_path / "frames.dcm", np.ones((9, 7, 4)), [0, 1, 2, 3])
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(ScanError, match=r"--editable '\.\[dicom\]' in the checkout"):
        read_scan(path)
