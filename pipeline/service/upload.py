"""What a client sent, as a scan on the disk: a NIfTI file, or a ZIP archive of DICOM files, unpacked within bounds."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from rarevox.transforms.reading.content import GZIP, is_dicom

UNPACKED = 4
"""Times as many bytes as may be uploaded may be unpacked; DICOM's pixels shrink to about a half."""
MOST_FILES = 20_000
_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NIFTI = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
SERIES = "series"
"""The folder of an unpacked archive."""


class UploadError(ValueError):
    """What was sent cannot be used; the message says why, ``status`` is HTTP's."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def scan_in(upload: Path, folder: Path, most_bytes: int) -> Path:
    """The scan in an uploaded file: the file by a name after what it holds, or a folder of DICOM files.

    Args:
        upload: the file, which stays as it is: an attempt that ends early is followed by another one.
        folder: an empty one, on the same disk, for what is made.
        most_bytes: that may be unpacked.

    Raises:
        UploadError: neither NIfTI nor a ZIP archive of DICOM files, an archive that is damaged, too large or not safe.
    """
    with upload.open("rb") as handle:
        head = handle.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        series = folder / SERIES
        series.mkdir()
        unpack(upload, series, most_bytes)
        return _sorted_out(series)
    if head.startswith(GZIP) or head[:4] in _NIFTI:
        return _linked(upload, folder / ("upload.nii.gz" if head.startswith(GZIP) else "upload.nii"))
    if is_dicom(head):
        return _linked(upload, folder / "upload.dcm")
    if head.startswith(b"--"):
        raise UploadError("the body is a form; send the file itself (curl --data-binary @FILE)", 415)
    raise UploadError("the body is neither NIfTI nor a ZIP archive of DICOM files", 415)


def _sorted_out(series: Path) -> Path:
    """A folder of unpacked files without those that are no DICOM, as a disc's text and viewer; or its only NIfTI file.

    Raises:
        UploadError: there is neither.
    """
    others = []
    for path in sorted(series.iterdir()):
        with path.open("rb") as handle:
            head = handle.read(512)
        if not is_dicom(head):
            others.append((path, head))
    if len(others) < len(list(series.iterdir())):
        for path, _ in others:
            path.unlink()
        return series
    images = [(path, head) for path, head in others if head.startswith(GZIP) or head[:4] in _NIFTI]
    if len(images) == 1:
        ((path, head),) = images
        return path.rename(series.parent / ("upload.nii.gz" if head.startswith(GZIP) else "upload.nii"))
    raise UploadError(
        f"of the {len(others)} files in the ZIP archive none is DICOM; send a series, or one NIfTI file", 415
    )


def _linked(upload: Path, name: Path) -> Path:
    """The file by a second name."""
    try:
        os.link(upload, name)
    except OSError:  # a disk without second names
        shutil.copyfile(upload, name)
    return name


def unpack(archive: Path, folder: Path, most_bytes: int, most_files: int = MOST_FILES) -> int:
    """Unpack the files of a ZIP archive as ``000001.dcm`` … into a folder; how many there were.

    Names in the archive are looked at and never used. Links, names that lead out of a folder, encrypted entries and
    other methods than deflation are refused before anything is written; what comes out is counted while it comes, so
    that neither an entry that declares less than it holds nor overlapping entries fill the disk.

    Raises:
        UploadError: any of these, a damaged archive, or one without files.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not _is_passed_over(entry)]
            _require_safe(entries, most_bytes, most_files)
            left = most_bytes
            for number, entry in enumerate(entries, start=1):
                left -= _extract(packed, entry, folder / f"{number:06}.dcm", left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        told = f"the ZIP archive is damaged or of a kind that is not read: {error}"
        raise UploadError(f"{told} (curl sends it whole with --data-binary)") from error
    if not entries:
        raise UploadError("the ZIP archive holds no files")
    return len(entries)


def _is_passed_over(entry: zipfile.ZipInfo) -> bool:
    """Folders, hidden files, macOS's twins and indices."""
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    last = parts[-1] if parts else ""
    hidden = any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in parts)
    return entry.is_dir() or hidden or last.upper() == "DICOMDIR"


def _require_safe(entries: list[zipfile.ZipInfo], most_bytes: int, most_files: int) -> None:
    if len(entries) > most_files:
        raise UploadError(f"the ZIP archive holds {len(entries)} files; {most_files} are allowed", 413)
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
            raise UploadError("the ZIP archive holds a name that leads out of its folder")
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise UploadError("the ZIP archive holds a link or a special file")
        if entry.flag_bits & 1:
            raise UploadError("the ZIP archive is encrypted")
        if entry.compress_type not in _METHODS:
            raise UploadError("the ZIP archive is compressed by another method than deflation")
    declared = sum(entry.file_size for entry in entries)
    if declared > most_bytes:
        raise UploadError(f"the ZIP archive unpacks to {declared} bytes; {most_bytes} are allowed", 413)


def _extract(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path, most_bytes: int) -> int:
    written = 0
    with packed.open(entry) as source, to.open("wb") as target:
        while block := source.read(_CHUNK):
            written += len(block)
            if written > most_bytes:
                raise UploadError(f"the ZIP archive unpacks to more than the {most_bytes} bytes left to it", 413)
            target.write(block)
    return written
