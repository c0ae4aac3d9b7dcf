"""Reading: every format gives the same array and affine, and every fault one clear sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.data import NibabelReader
from monai.transforms import Compose, LoadImage, LoadImaged

from rarevox.transforms.reader import ScanError, read_scan, same_affine
from rarevox.transforms.scan_reader import ScanReader

# A quarter turn about z with unequal spacings: voxel (i, j, k) lies at RAS (10 − 2j, 20 + 1.5i, −5 + 3k).
AFFINE = np.array([[0.0, -2.0, 0.0, 10.0], [1.5, 0.0, 0.0, 20.0], [0.0, 0.0, 3.0, -5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-500, 1500, (5, 4, 3)).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def itk_image(array: np.ndarray, affine: np.ndarray = AFFINE, *, vector: bool = False) -> SimpleITK.Image:
    """Written by hand, apart from the reader: ITK's x and y point the other way than RAS, so two rows change sign."""
    order = (2, 1, 0, 3) if vector else tuple(range(array.ndim))[::-1]
    image = SimpleITK.GetImageFromArray(array.transpose(order), isVector=vector)
    if image.GetDimension() == 3:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((affine[:3, :3] / spacing * [[-1], [-1], [1]]).reshape(-1).tolist())
        image.SetOrigin([-affine[0, 3], -affine[1, 3], affine[2, 3]])
    return image


def test_nifti_keeps_voxels_place_and_type(tmp_path: Path, voxels: np.ndarray) -> None:
    scan = read_scan(save(tmp_path / "a.nii.gz", voxels))
    np.testing.assert_array_equal(scan.array[0], voxels)
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.array.dtype == np.float32
    assert scan.array.flags.c_contiguous
    assert scan.stored_dtype == "int16"
    assert scan.shape == (5, 4, 3)
    assert scan.spacing_mm == pytest.approx((1.5, 2.0, 3.0))
    assert scan.voxel_ml == pytest.approx(0.009)  # 1.5 × 2 × 3 = 9 mm³


def test_dtype_none_keeps_the_type_of_the_file(tmp_path: Path, voxels: np.ndarray) -> None:
    scan = read_scan(save(tmp_path / "a.nii", voxels), dtype=None)
    assert scan.array.dtype == np.int16


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_itk_formats_agree_with_nifti(tmp_path: Path, voxels: np.ndarray, suffix: str) -> None:
    SimpleITK.WriteImage(itk_image(voxels), str(tmp_path / f"a{suffix}"))
    scan = read_scan(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(scan.array[0], voxels)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-9)


def test_nifti_written_by_itk_and_read_by_nibabel_lies_where_the_nrrd_lies(tmp_path: Path, voxels: np.ndarray) -> None:
    image = itk_image(voxels)
    for name in ("a.nii.gz", "a.nrrd"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
    first, second = read_scan(tmp_path / "a.nii.gz"), read_scan(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(first.array, second.array)
    assert same_affine(first.affine, second.affine, 1e-5)


def test_scaling_is_applied(tmp_path: Path, voxels: np.ndarray) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_slope_inter(0.5, 10.0)
    image.to_filename(tmp_path / "a.nii.gz")
    stored = np.asanyarray(nib.load(tmp_path / "a.nii.gz").dataobj.get_unscaled())
    scan = read_scan(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(scan.array[0], stored * 0.5 + 10.0, rtol=1e-6)


def test_big_endian_voxels_come_in_native_order(tmp_path: Path, voxels: np.ndarray) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(voxels.astype(">i2"), AFFINE, header), tmp_path / "a.nii")
    for dtype in (np.float32, None):
        scan = read_scan(tmp_path / "a.nii", dtype=dtype)
        assert scan.array.dtype.isnative
        np.testing.assert_array_equal(scan.array[0], voxels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 4), (1, 5, 4, 1)),
        ((5, 4, 1), (1, 5, 4, 1)),
        ((5, 4, 3, 1), (1, 5, 4, 3)),
        ((5, 4, 3, 2), (2, 5, 4, 3)),
        ((5, 4, 3, 1, 2), (2, 5, 4, 3)),
        ((5, 4, 3, 2, 1), (2, 5, 4, 3)),
    ],
)
def test_further_axes_are_channels_or_dropped(tmp_path: Path, shape: tuple[int, ...], expected: tuple) -> None:
    array = np.random.default_rng(1).random(shape).astype(np.float32)
    scan = read_scan(save(tmp_path / "a.nii.gz", array))
    assert scan.array.shape == expected
    for channel in range(expected[0]):
        wanted = array.reshape(*expected[1:], expected[0])[..., channel]
        np.testing.assert_array_equal(scan.array[channel], wanted)


def test_nrrd_components_are_channels(tmp_path: Path) -> None:
    array = np.random.default_rng(1).random((5, 4, 3, 2)).astype(np.float32)
    SimpleITK.WriteImage(itk_image(array, vector=True), str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nrrd").array, np.moveaxis(array, -1, 0))


def test_several_files_are_channels_in_order(tmp_path: Path, voxels: np.ndarray) -> None:
    files = [save(tmp_path / "b.nii.gz", voxels), save(tmp_path / "a.nii.gz", voxels * 2)]
    scan = read_scan(files)
    np.testing.assert_array_equal(scan.array, np.stack([voxels, voxels * 2]))
    assert scan.paths == tuple(files)


def test_units_other_than_millimetres_are_converted(tmp_path: Path, voxels: np.ndarray) -> None:
    image = nib.Nifti1Image(voxels, np.diag([0.001, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "a.nii.gz")
    assert read_scan(tmp_path / "a.nii.gz").spacing_mm == pytest.approx((1.0, 2.0, 3.0))


def test_affine_noise_is_tolerated_and_more_is_not(tmp_path: Path, voxels: np.ndarray) -> None:
    first = save(tmp_path / "a.nii.gz", voxels)
    shift = np.zeros((4, 4))
    shift[0, 3] = 1.0
    close = save(tmp_path / "close.nii.gz", voxels, AFFINE + 0.0005 * shift)
    assert read_scan([first, close]).array.shape[0] == 2
    far = save(tmp_path / "far.nii.gz", voxels, AFFINE + 0.01 * shift)
    with pytest.raises(ScanError, match=r"differ by 0\.01 mm") as caught:
        read_scan([first, far])
    assert caught.value.check == "channel-grid"


def test_files_of_different_size_are_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    files = [save(tmp_path / "a.nii.gz", voxels), save(tmp_path / "b.nii.gz", voxels[:4])]
    with pytest.raises(ScanError, match=r"b\.nii\.gz is 4×4×3 voxels and .*a\.nii\.gz is 5×4×3"):
        read_scan(files)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"none\.nii\.gz does not exist") as caught:
        read_scan(tmp_path / "none.nii.gz")
    assert caught.value.check == "missing-file"
    (tmp_path / "empty.nii.gz").touch()
    with pytest.raises(ScanError, match="is empty"):
        read_scan(tmp_path / "empty.nii.gz")
    with pytest.raises(ScanError, match="no file was named"):
        read_scan([])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_a_truncated_file_of_any_format_is_one_error(tmp_path: Path, name: str, keep: float) -> None:
    array = np.random.default_rng(2).integers(0, 30000, (20, 20, 20)).astype(np.int16)
    path = tmp_path / name
    if name.startswith("a.nii"):
        save(path, array)
    else:
        SimpleITK.WriteImage(itk_image(array), str(path), useCompression=True)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ScanError, match="a\\.") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)


def test_flipped_bits_in_compressed_data_are_found(tmp_path: Path) -> None:
    array = np.random.default_rng(2).integers(0, 30000, (20, 20, 20)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", array)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"corrupt|cannot be read"):
        read_scan(path)


def test_text_under_an_image_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("not an image, but long enough to be taken for a header\n" * 20)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"hello" * 200))
    (tmp_path / "c.nrrd").write_text("nothing")
    (tmp_path / "d.txt").write_text("nothing")
    for name in ("a.nii", "b.nii.gz", "c.nrrd", "d.txt"):
        with pytest.raises(ScanError, match="cannot be read as an image"):
            read_scan(tmp_path / name)


def test_a_time_series_of_vectors_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.zeros((3, 3, 3, 2, 2), np.float32))
    with pytest.raises(ScanError, match="3×3×3×2×2; expected a volume of 3, or 4 with channels last"):
        read_scan(path)


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), np.complex64))
    with pytest.raises(ScanError, match="complex64 voxels"):
        read_scan(path)


def test_a_singular_affine_is_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header["srow_x"] = image.header["srow_y"]
    nib.Nifti1Image(voxels, None, image.header).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises(ScanError, match="singular") as caught:
        read_scan(tmp_path / "a.nii.gz")
    assert caught.value.check == "singular-affine"


def test_monai_loads_the_same_as_with_its_own_reader(tmp_path: Path) -> None:
    array = np.random.default_rng(3).random((5, 4, 3, 2)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", array)
    ours = LoadImage(reader="rarevox.transforms.ScanReader", ensure_channel_first=True)(path)
    theirs = LoadImage(reader=NibabelReader, ensure_channel_first=True)(path)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_allclose(ours.affine, theirs.affine)
    np.testing.assert_allclose(ours.meta["original_affine"], theirs.meta["original_affine"])
    np.testing.assert_array_equal(ours.meta["spatial_shape"], theirs.meta["spatial_shape"])
    assert ours.meta["filename_or_obj"] == str(path)
    assert ours.meta["original_dtype"] == "float32"


def test_monai_stacks_a_list_of_files(tmp_path: Path, voxels: np.ndarray) -> None:
    files = [str(save(tmp_path / "a.nii.gz", voxels)), str(save(tmp_path / "b.nii.gz", voxels + 1))]
    loaded = LoadImaged(["image"], reader=ScanReader(), ensure_channel_first=True)({"image": files})["image"]
    np.testing.assert_array_equal(loaded.numpy(), np.stack([voxels, voxels + 1]))
    assert loaded.meta["filename_or_obj"] == files[0]


def test_the_reason_reaches_monais_caller(tmp_path: Path) -> None:
    load = LoadImaged(["image"], reader="rarevox.transforms.ScanReader", ensure_channel_first=True)
    with pytest.raises(ScanError, match="does not exist"):
        load({"image": str(tmp_path / "none.nii.gz")})
    with pytest.raises(RuntimeError) as caught:
        Compose([load])({"image": str(tmp_path / "none.nii.gz")})
    assert isinstance(caught.value.__cause__, ScanError)
