"""Label maps lie exactly on the grid of the scan, whatever format it came in."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.volumes import write_labels, write_shares
from rarevox.transforms.reader import Scan, read_scan

SFORM = np.array([[0.0, -2.0, 0.0, 10.0], [1.5, 0.0, 0.0, 20.0], [0.0, 0.0, 3.0, -5.0], [0.0, 0.0, 0.0, 1.0]])
QFORM = np.diag([1.5, 2.0, 3.0, 1.0])


def stored(path: Path, shape: tuple[int, ...], codes: tuple[int, int], kind: type = nib.Nifti1Image) -> Path:
    """A scan with different sform and qform, scaling, units and display range."""
    image = kind(np.ones(shape, np.int16), SFORM)
    image.header.set_qform(QFORM, code=codes[1])
    image.header.set_sform(SFORM, code=codes[0])
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 900
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0), (1, 2)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_forms_codes_and_units_are_copied(tmp_path: Path, codes: tuple[int, int], kind: type) -> None:
    source = stored(tmp_path / "a.nii.gz", (5, 4, 3), codes, kind)
    labels = np.arange(60).reshape(5, 4, 3) % 3
    write_labels(tmp_path / "a_seg.nii.gz", labels, read_scan(source))
    before, after = nib.load(source), nib.load(tmp_path / "a_seg.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), labels)
    np.testing.assert_array_equal(after.affine, before.affine)
    fields = ["sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"]
    for key in [*fields, "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units"]:
        np.testing.assert_array_equal(after.header[key], before.header[key], err_msg=key)
    np.testing.assert_array_equal(after.header["pixdim"][:4], before.header["pixdim"][:4])
    assert after.get_data_dtype() == np.uint8
    assert after.header["cal_max"] == 0


@pytest.mark.parametrize(("shape", "expected"), [((5, 4, 3, 2), (5, 4, 3)), ((5, 4), (5, 4)), ((5, 4, 1), (5, 4, 1))])
def test_channels_are_dropped_and_slices_stay_slices(tmp_path: Path, shape: tuple, expected: tuple) -> None:
    scan = read_scan(stored(tmp_path / "a.nii.gz", shape, (1, 1)))
    write_labels(tmp_path / "s.nii.gz", np.ones(scan.shape, np.int64), scan)
    assert nib.load(tmp_path / "s.nii.gz").shape == expected


def test_other_formats_get_the_affine_in_both_forms(tmp_path: Path) -> None:
    scan = Scan(np.zeros((1, 5, 4, 3), np.float32), SFORM, (Path("a.mha"),))
    after = nib.load(write_labels(tmp_path / "s.nii.gz", np.ones((1, 5, 4, 3), bool), scan))
    np.testing.assert_allclose(after.affine, SFORM)
    np.testing.assert_allclose(after.header.get_qform(), SFORM, atol=1e-5)
    assert (after.header["sform_code"], after.header["qform_code"]) == (1, 1)
    assert after.header.get_xyzt_units()[0] == "mm"


def test_labels_above_255_take_two_bytes(tmp_path: Path) -> None:
    scan = Scan(np.zeros((1, 2, 1, 1)), np.eye(4), (Path("a.mha"),))
    after = nib.load(write_labels(tmp_path / "s.nii.gz", np.array([[[300.0]], [[0.0]]]), scan))
    assert after.get_data_dtype() == np.uint16
    assert np.asanyarray(after.dataobj).reshape(-1).tolist() == [300, 0]


@pytest.mark.parametrize("wrong", [[0.5, 0.0], [-1, 0], [70000, 0], [np.nan, 0.0]])
def test_values_that_are_no_labels_are_refused(tmp_path: Path, wrong: list) -> None:
    scan = Scan(np.zeros((1, 2, 1, 1)), np.eye(4), (Path("a.mha"),))
    with pytest.raises(ValueError, match="whole numbers from 0 to 65535"):
        write_labels(tmp_path / "s.nii.gz", np.array(wrong).reshape(2, 1, 1), scan)
    assert not list(tmp_path.iterdir())


def test_another_shape_or_suffix_is_refused(tmp_path: Path) -> None:
    scan = Scan(np.zeros((1, 2, 1, 1)), np.eye(4), (Path("a.mha"),))
    with pytest.raises(ValueError, match="the labels are 1×2×1 voxels and the scan is 2×1×1"):
        write_labels(tmp_path / "s.nii.gz", np.zeros((1, 2, 1), int), scan)
    with pytest.raises(ValueError, match=r"must end in \.nii\.gz"):
        write_labels(tmp_path / "s.mha", np.zeros((2, 1, 1), int), scan)


def test_a_failed_write_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Scan(np.zeros((1, 2, 1, 1)), np.eye(4), (Path("a.mha"),))
    path = write_labels(tmp_path / "s.nii.gz", np.ones((2, 1, 1), int), scan)
    before = path.read_bytes()

    def full(image: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_labels(path, np.zeros((2, 1, 1), int), scan)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_shares_are_bytes_with_a_slope(tmp_path: Path) -> None:
    source = stored(tmp_path / "a.nii.gz", (4, 3, 2), (2, 1))
    values = (np.arange(24).reshape(4, 3, 2) * 11).astype(np.uint8)
    after = nib.load(write_shares(tmp_path / "s.nii.gz", values, read_scan(source)))
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_allclose(after.get_fdata(), values / 255, atol=1e-7)
    np.testing.assert_array_equal(after.affine, nib.load(source).affine)
    assert int(after.header["sform_code"]) == 2
    with pytest.raises(ValueError, match="uint8"):
        write_shares(tmp_path / "s.nii.gz", values / 255, read_scan(source))
