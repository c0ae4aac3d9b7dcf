"""Kinds of entries that are no file, no scan, or another file than their name says."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.hostile.kinds import nifti, refused, sound, voxels


@refused("named pipe")
def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


@refused("named pipe")
def pipe_behind_a_link(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    (folder / "scan.nii").symlink_to(folder / "pipe")
    return folder / "scan.nii"


@refused("socket")
def socket_file(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(folder)  # a socket's name has at most 107 bytes
        try:
            bound.bind("scan.nii")
        finally:
            os.chdir(here)
    return folder / "scan.nii"


@refused("a device")
def endless_device(folder: Path) -> Path:
    (folder / "scan.nii").symlink_to("/dev/zero")
    return folder / "scan.nii"


@refused("holds no DICOM files")
def folder_called_like_a_file(folder: Path) -> Path:
    (folder / "scan.nii.gz").mkdir()
    return folder / "scan.nii.gz"


@refused("link to a file that does not exist")
def dangling_link(folder: Path) -> Path:
    (folder / "scan.nii.gz").symlink_to(folder / "gone.nii.gz")
    return folder / "scan.nii.gz"


@refused("cannot be read")
def loop_of_links(folder: Path) -> Path:
    (folder / "scan.nii").symlink_to(folder / "other.nii")
    (folder / "other.nii").symlink_to(folder / "scan.nii")
    return folder / "scan.nii"


@refused("does not exist")
def missing(folder: Path) -> Path:
    return folder / "scan.nii.gz"


@refused("cannot be read")
def name_that_is_too_long(folder: Path) -> Path:
    return folder / f"{'a' * 300}.nii.gz"


@refused(r"is empty \(0 bytes\)")
def empty(folder: Path) -> Path:
    (folder / "scan.nii.gz").touch()
    return folder / "scan.nii.gz"


@refused("nothing but zero bytes")
def zeros(folder: Path) -> Path:
    (folder / "scan.nii").write_bytes(bytes(5000))
    return folder / "scan.nii"


@refused("no format that is known")
def noise(folder: Path) -> Path:
    (folder / "scan.nii").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder / "scan.nii"


@refused("Git LFS pointer")
def lfs_pointer(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
    )
    return folder / "scan.nii.gz"


@refused("git-annex pointer")
def annex_pointer(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("/annex/objects/MD5E-s123--0123456789abcdef.nii.gz\n")
    return folder / "scan.nii.gz"


@refused("HTML page")
def html_page(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("<!DOCTYPE html>\n<html><title>404 Not Found</title></html>")
    return folder / "scan.nii.gz"


@refused("HTML page")
def html_page_gzipped(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_bytes(gzip.compress(b"<html><body>please log in</body></html>"))
    return folder / "scan.nii.gz"


@refused("XML document")
def xml_error(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>')
    return folder / "scan.nii.gz"


@refused("a text file")
def json_error(folder: Path) -> Path:
    (folder / "scan.nii").write_text('{"message": "rate limit exceeded"}')
    return folder / "scan.nii"


@refused("ZIP archive")
def zip_archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "scan.nii.gz", "w") as archive:
        archive.writestr("scan.nii", b"n+1")
    return folder / "scan.nii.gz"


@refused("tar archive")
def tar_archive_gzipped(folder: Path) -> Path:
    with tarfile.open(folder / "scan.nii.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("scan.nii")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"n+1"))
    return folder / "scan.nii.gz"


@refused("compressed twice")
def gzipped_twice(folder: Path) -> Path:
    path = nifti(folder / "scan.nii.gz")
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@refused("bzip2")
def bzip2(folder: Path) -> Path:
    import bz2

    (folder / "scan.nii.bz2").write_bytes(bz2.compress(nifti(folder / "a.nii").read_bytes()))
    return folder / "scan.nii.bz2"


@refused("PNG picture")
def png_picture(folder: Path) -> Path:
    (folder / "scan.nii").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return folder / "scan.nii"


@refused("HDF5")
def hdf5(folder: Path) -> Path:
    (folder / "scan.mha").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return folder / "scan.mha"


@refused("NumPy array")
def numpy_array(folder: Path) -> Path:
    with (folder / "scan.nii").open("wb") as handle:
        np.save(handle, voxels())
    return folder / "scan.nii"


@refused("macOS resource file")
def macos_twin(folder: Path) -> Path:
    (folder / "._scan.nii.gz").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(50))
    return folder / "._scan.nii.gz"


@sound
def plain_called_gz(folder: Path) -> Path:
    path = nifti(folder / "a.nii")
    return path.rename(folder / "scan.nii.gz")


@sound
def gzipped_called_nii(folder: Path) -> Path:
    path = nifti(folder / "a.nii.gz")
    return path.rename(folder / "scan.nii")


@sound
def nifti_called_mha(folder: Path) -> Path:
    return nifti(folder / "a.nii.gz").rename(folder / "scan.mha")


@sound
def nifti_without_a_suffix(folder: Path) -> Path:
    return nifti(folder / "a.nii").rename(folder / "scan")


@sound
def capital_suffix(folder: Path) -> Path:
    return nifti(folder / "a.nii.gz").rename(folder / "SCAN.NII.GZ")


@sound
def link_to_a_scan(folder: Path) -> Path:
    nifti(folder / "a.nii.gz")
    (folder / "scan.nii.gz").symlink_to(folder / "a.nii.gz")
    return folder / "scan.nii.gz"


@sound
def name_that_is_not_utf8(folder: Path) -> Path:
    path = folder / os.fsdecode(b"sc\xffan.nii.gz")
    return nifti(folder / "a.nii.gz").rename(path)


@sound
def mgh_gzipped(folder: Path) -> Path:
    nib.MGHImage(voxels().astype(np.float32), np.eye(4)).to_filename(folder / "scan.mgz")
    return folder / "scan.mgz"


@sound
def pair_named_by_its_image(folder: Path) -> Path:
    nib.Nifti1Pair(voxels(), np.eye(4)).to_filename(folder / "scan.img")
    return folder / "scan.img"


@refused(r"scan\.img does not exist")
def pair_without_its_image(folder: Path) -> Path:
    nib.Nifti1Pair(voxels(), np.eye(4)).to_filename(folder / "scan.img")
    (folder / "scan.img").unlink()
    return folder / "scan.hdr"


@refused(r"scan\.img is a named pipe")
def pair_with_a_pipe(folder: Path) -> Path:
    pair_without_its_image(folder)
    os.mkfifo(folder / "scan.img")
    return folder / "scan.hdr"


@refused(r"one of a pair")
def pair_under_another_suffix(folder: Path) -> Path:
    nib.Nifti1Pair(voxels(), np.eye(4)).to_filename(folder / "scan.img")
    return (folder / "scan.hdr").rename(folder / "scan.nii")
