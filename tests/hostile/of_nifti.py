"""Kinds of NIfTI files whose headers, sizes, units or intensities are wrong or odd."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.hostile.kinds import edit_header, nifti, refused, sound, voxels, warned

NO_FORMS = {"sform_code": 0, "qform_code": 0}


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@refused("is truncated")
def truncated(folder: Path) -> Path:
    return cut(nifti(folder / "scan.nii"), 0.9)


@refused("truncated or corrupt")
def truncated_gz(folder: Path) -> Path:
    return cut(nifti(folder / "scan.nii.gz"), 0.9)


@refused("header")
def truncated_in_the_header(folder: Path) -> Path:
    return cut(nifti(folder / "scan.nii"), 0.1)


@refused("truncated or corrupt")
def flipped_bits_gz(folder: Path) -> Path:
    path = nifti(folder / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


@refused("is truncated: it inflates to")
def gz_that_ends_early(folder: Path) -> Path:
    path = nifti(folder / "scan.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-200]))
    return path


@refused("corrupt")
def rubbish_behind_a_gz(folder: Path) -> Path:
    path = nifti(folder / "scan.nii.gz")
    path.write_bytes(path.read_bytes() + b"rubbish" * 10)
    return path


@warned("follow its volume")
def gz_that_goes_on(folder: Path) -> Path:
    """A gigabyte of zeros behind a volume of two kilobytes; the file has one megabyte."""
    path = nifti(folder / "scan.nii.gz")
    with gzip.open(path, "ab", 1) as handle:
        block = bytes(1 << 24)
        for _ in range(64):
            handle.write(block)
    return path


@warned("follow its volume")
def file_that_goes_on(folder: Path) -> Path:
    path = nifti(folder / "scan.nii")
    with path.open("r+b") as handle:
        handle.truncate(1 << 33)  # sparse
    return path


@sound
def a_little_behind(folder: Path) -> Path:
    path = nifti(folder / "scan.nii")
    path.write_bytes(path.read_bytes() + bytes(100))
    return path


@refused("truncated or its header is wrong")
def more_than_the_file(folder: Path) -> Path:
    return nifti(folder / "scan.nii", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])


@refused("truncated or its header is wrong")
def more_than_the_gz(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])


@refused("GB in memory")
def more_than_the_memory(folder: Path) -> Path:
    path = nifti(folder / "scan.nii", dim=[3, 1500, 1500, 1500, 1, 1, 1, 1])
    with path.open("r+b") as handle:
        handle.truncate(352 + 2 * 1500**3)  # sparse
    return path


@refused("truncated or its header is wrong")
def sizes_whose_product_overflows(folder: Path) -> Path:
    image = nib.Nifti2Image(voxels(), np.eye(4))
    image.to_filename(folder / "scan.nii")
    content = bytearray((folder / "scan.nii").read_bytes())
    header = nib.Nifti2Header(bytes(content[:540]), check=False)
    header["dim"] = [3, 2**32, 2**32, 2**32, 1, 1, 1, 1]
    content[:540] = header.binaryblock
    (folder / "scan.nii").write_bytes(content)
    return folder / "scan.nii"


@refused("holds no voxels")
def no_voxels(folder: Path) -> Path:
    return nifti(folder / "scan.nii", dim=[3, 12, 0, 8, 1, 1, 1, 1])


@refused("expected positive numbers")
def negative_size(folder: Path) -> Path:
    return nifti(folder / "scan.nii", dim=[3, 12, -10, 8, 1, 1, 1, 1])


@refused("dimension")
def no_dimensions(folder: Path) -> Path:
    return nifti(folder / "scan.nii", dim=[0, 12, 10, 8, 1, 1, 1, 1])


@refused("dimension")
def one_dimension(folder: Path) -> Path:
    return nifti(folder / "scan.nii", dim=[1, 960, 1, 1, 1, 1, 1, 1])


@refused("expected a volume of 3")
def seven_dimensions(folder: Path) -> Path:
    return nifti(folder / "scan.nii", dim=[7, 2, 2, 2, 2, 2, 2, 2])


@refused("type of voxels")
def unknown_datatype(folder: Path) -> Path:
    return nifti(folder / "scan.nii", datatype=77)


@refused("complex64")
def complex_voxels(folder: Path) -> Path:
    return nifti(folder / "scan.nii", voxels().astype(np.complex64))


@refused("whole or real numbers")
def coloured_voxels(folder: Path) -> Path:
    return nifti(folder / "scan.nii", datatype=128, dim=[3, 8, 8, 8, 1, 1, 1, 1])


@refused("begin at byte")
def offset_that_is_no_number(folder: Path) -> Path:
    return nifti(folder / "scan.nii", vox_offset=np.nan)


@refused("truncated or its header is wrong")
def offset_behind_the_end(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", vox_offset=1e30)


@refused("cannot be read as an image")
def offset_in_the_header(folder: Path) -> Path:
    return nifti(folder / "scan.nii", vox_offset=16)


@refused("lacks NIfTI's mark")
def without_the_mark(folder: Path) -> Path:
    return nifti(folder / "scan.nii", magic=b"abc")


@warned("slope")
def slope_that_is_no_number(folder: Path) -> Path:
    return nifti(folder / "scan.nii", scl_slope=np.nan)


@refused("cannot be read as an image")
def intercept_that_is_no_number(folder: Path) -> Path:
    return nifti(folder / "scan.nii", scl_slope=2.0, scl_inter=np.nan)


@sound
def slope_of_zero(folder: Path) -> Path:
    return nifti(folder / "scan.nii", scl_slope=0.0, scl_inter=7.0)


@refused("NaN or infinite")
def affine_that_is_no_number(folder: Path) -> Path:
    return nifti(folder / "scan.nii", srow_x=[np.nan, 0, 0, 0])


@refused("NaN or infinite")
def affine_that_is_infinite(folder: Path) -> Path:
    return nifti(folder / "scan.nii", srow_x=[np.inf, 0, 0, 0])


@refused("singular")
def affine_of_zeros(folder: Path) -> Path:
    return nifti(folder / "scan.nii", srow_x=[0, 0, 0, 0], srow_y=[0, 0, 0, 0], srow_z=[0, 0, 0, 0])


@refused("singular")
def affine_with_two_axes_alike(folder: Path) -> Path:
    return nifti(folder / "scan.nii", srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0])


@refused("which no scan's are")
def voxels_of_a_million_kilometres(folder: Path) -> Path:
    return nifti(folder / "scan.nii", affine=np.diag([1e12, 1e12, 1e12, 1.0]))


@refused("which no scan's are")
def voxels_smaller_than_atoms(folder: Path) -> Path:
    return nifti(folder / "scan.nii", affine=np.diag([1e-9, 1e-9, 1e-9, 1.0]))


@refused("correct its origin")
def origin_beyond_the_moon(folder: Path) -> Path:
    return nifti(folder / "scan.nii", srow_x=[1, 0, 0, 1e30])


@refused("pixdim")
def pixdim_of_zero(folder: Path) -> Path:
    return nifti(folder / "scan.nii", pixdim=[1, 0, 0, 0, 0, 0, 0, 0], **NO_FORMS)


@refused("pixdim")
def pixdim_that_is_no_number(folder: Path) -> Path:
    return nifti(folder / "scan.nii", pixdim=[1, np.nan, 1, 1, 1, 1, 1, 1], **NO_FORMS)


@refused("which no scan's are")
def pixdim_of_1e30(folder: Path) -> Path:
    return nifti(folder / "scan.nii", pixdim=[1, 1e30, 1, 1, 1, 1, 1, 1], **NO_FORMS)


@warned("those of its sform are used")
def pixdim_of_zero_beside_an_sform(folder: Path) -> Path:
    return nifti(folder / "scan.nii", pixdim=[1, 0, 0, 0, 0, 0, 0, 0], sform_code=1)


@refused("cannot be read as an image|NaN or infinite")
def quaternion_that_is_none(folder: Path) -> Path:
    return nifti(folder / "scan.nii", quatern_b=5.0, quatern_c=5.0, quatern_d=5.0, sform_code=0, qform_code=1)


@warned("are the units right")
def micrometres_called_millimetres(folder: Path) -> Path:
    return nifti(folder / "scan.nii", affine=np.diag([500.0, 500.0, 500.0, 1.0]))


@warned("are the units right")
def metres_called_millimetres(folder: Path) -> Path:
    return nifti(folder / "scan.nii", affine=np.diag([0.001, 0.001, 0.001, 1.0]))


@sound
def in_metres(folder: Path) -> Path:
    return nifti(folder / "scan.nii", affine=np.diag([0.001, 0.001, 0.002, 1.0]), xyzt_units=1)


@sound
def in_micrometres(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", affine=np.diag([1000.0, 1500.0, 2000.0, 1.0]), xyzt_units=3)


@sound
def in_units_that_are_none(folder: Path) -> Path:
    return nifti(folder / "scan.nii", xyzt_units=7)


@warned("every voxel is 0")
def blank(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", np.zeros((12, 10, 8), np.int16))


@warned("every voxel is 7")
def constant(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", np.full((12, 10, 8), 7, np.int16))


@warned("of channel 2 is 0")
def constant_channel(folder: Path) -> Path:
    array = voxels((12, 10, 8, 2))
    array[..., 1] = 0
    return nifti(folder / "scan.nii.gz", array)


@sound
def one_voxel_wide(folder: Path) -> Path:
    return nifti(folder / "scan.nii", voxels((1, 10, 8)))


@sound
def a_single_slice(folder: Path) -> Path:
    return nifti(folder / "scan.nii", voxels((12, 10)), pixdim=[1, 1, 1, 0, 0, 0, 0, 0])


@sound
def big_endian(folder: Path) -> Path:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.Nifti1Image(voxels().astype(">i2"), np.eye(4), header).to_filename(folder / "scan.nii")
    return folder / "scan.nii"


@sound
def nifti_2(folder: Path) -> Path:
    nib.Nifti2Image(voxels(), np.eye(4)).to_filename(folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


@refused("cannot be read as an image")
def extension_of_a_negative_size(folder: Path) -> Path:
    path = nifti(folder / "scan.nii")
    content = bytearray(path.read_bytes())
    extension = b"\x01\x00\x00\x00" + (-16).to_bytes(4, "little", signed=True) + (4).to_bytes(4, "little")
    path.write_bytes(content[:348] + extension + bytes(400 - 348 - len(extension)) + content[352:])
    return edit_header(path, vox_offset=400)
