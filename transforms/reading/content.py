"""What a file is, told by its first bytes and not by its name."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import open_regular

HEAD_BYTES = 1024
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
GZIP = b"\x1f\x8b"
EXPECTED = "expected NIfTI, MGH, NRRD, MetaImage or DICOM"

# The group and element numbers, little endian, with which DICOM files without a preamble begin.
_BARE_DICOM = re.compile(rb"^(\x02\x00|\x08\x00)[\x00\x01\x05\x08\x12\x16]\x00([A-Z]{2}|.\x00\x00)", re.DOTALL)
_META_IMAGE = re.compile(rb"^\s*(ObjectType|NDims|Comment|ObjectSubType|BinaryData)\s*[=:]")

_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file that it stands for; fetch that (`git lfs pull`)"),
    (b"/annex/objects/", "a git-annex pointer and not the file that it stands for; fetch that (`git annex get`)"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"BZh", "compressed by bzip2; unpack it"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x89HDF", "an HDF5 file"),
    (b"CDF", "a NetCDF file (MINC?)"),
    (b"\x93NUMPY", "a NumPy array, which says nothing about space"),
    (b"MATLAB", "a MATLAB file"),
    (b"# vtk", "a VTK file"),
    (b"\x7fELF", "a program"),
    (b"\x00\x05\x16\x07", "a macOS resource file (`._NAME`) and not the file itself"),
)


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        kind: ``nifti1``, ``nifti2`` (single files), ``pair1``, ``pair2`` (headers whose voxels are in another file),
            ``analyze``, ``mgh``, ``nrrd``, ``metaimage``, ``dicom``.
        gzipped: whether that is compressed.
        head: its first bytes, inflated.
    """

    kind: str
    gzipped: bool
    head: bytes


def content_of(path: Path) -> Content:
    """What the file holds, whatever its suffix.

    Raises:
        ScanError: what :func:`rarevox.transforms.reading.files.open_regular` refuses; another kind of file, which is
            named; compressed data that is damaged.
    """
    head = first_bytes(path)
    gzipped = head.startswith(GZIP)
    if gzipped:
        try:
            with open_regular(path) as handle, gzip.GzipFile(fileobj=handle) as stream:
                head = stream.read(HEAD_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            head = _as_far_as_it_goes(path)
    kind = _kind(head, path.name.lower())
    if kind and not (gzipped and kind in ("nrrd", "metaimage", "dicom")):
        return Content(kind, gzipped, head)
    told = f"a gzipped {kind.upper()} file; unpack it" if kind else _told(head, gzipped)
    raise ScanError(f"{path} cannot be read as an image: it is {told}; {EXPECTED}")


def first_bytes(path: Path, count: int = HEAD_BYTES) -> bytes:
    """The beginning of a regular file."""
    with open_regular(path) as handle:
        return handle.read(count)


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes are DICOM's: the mark behind the preamble, or a first element without one.

    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"\\x08\\x00\\x05\\x00CS..ISO_IR 100"), is_dicom(b"P3 a text")
    (True, True, False)
    """
    return head[128:132] == b"DICM" or bool(_BARE_DICOM.match(head))


def _as_far_as_it_goes(path: Path) -> bytes:
    """What a damaged compressed file begins with."""
    with open_regular(path) as handle:
        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            head = inflate.decompress(handle.read(HEAD_BYTES), HEAD_BYTES)
        except zlib.error:
            head = b""
    if not head:
        raise ScanError(f"{path} is truncated or corrupt: its compressed data ends early or is damaged")
    return head


def _kind(head: bytes, name: str) -> str:
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):  # 348, the size of the header
        marked = {b"n+1\x00": "nifti1", b"ni1\x00": "pair1"}.get(head[344:348], "")
        return marked or ("analyze" if name.endswith((".hdr", ".hdr.gz")) and len(head) >= 348 else "")
    if head[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"):  # 540
        return {b"n+2\x00": "nifti2", b"ni2\x00": "pair2"}.get(head[4:8], "")
    if head.startswith(b"NRRD00"):
        return "nrrd"
    if _META_IMAGE.match(head):
        return "metaimage"
    if head.startswith(b"\x00\x00\x00\x01") and name.endswith((".mgh", ".mgz", ".mgh.gz", ".gz")):
        return "mgh"
    return "dicom" if is_dicom(head) or name.endswith(DICOM_SUFFIXES) else ""


def _told(head: bytes, gzipped: bool) -> str:
    """What it is instead, in words."""
    inside = "gzipped data, in which there is " if gzipped else ""
    if head.startswith(GZIP):
        return "compressed twice; unpack it once"
    for mark, words in _OTHERS:
        if head.startswith(mark):
            return inside + words
    if head[257:262] == b"ustar":
        return inside + "a tar archive; unpack it"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return inside + "an HTML page and no image (a download that failed?)"
    if text.startswith(b"<?xml"):
        return inside + "an XML document"
    if not head.strip(b"\x00"):
        return inside + "nothing but zero bytes (an interrupted copy?)"
    if head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return inside + "something like NIfTI whose header is cut off or lacks NIfTI's mark"
    return inside + ("a text file" if _is_text(head) else "no format that is known")


def _is_text(head: bytes) -> bool:
    try:
        text = io.TextIOWrapper(io.BytesIO(head), encoding="utf-8", errors="strict").read(HEAD_BYTES // 4)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
