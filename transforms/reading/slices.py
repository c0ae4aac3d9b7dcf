"""What one DICOM file says about itself, or what is wrong with it."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.transforms.reading.content import DICOM_SUFFIXES, first_bytes, is_dicom
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import open_regular, product, require_memory, require_regular
from rarevox.transforms.reading.frames import frames_image
from rarevox.transforms.reading.geometry import size_text
from rarevox.transforms.reading.itk import image_reader

META_BYTES = 4096
INDEX = "1.2.840.10008.1.3.10"
"""The SOP class of a DICOMDIR, which lists files and is none of them."""

_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.11": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, a registration or a segmentation",
    "1.2.840.10008.5.1.4.1.1.88": "a structured report",
    "1.2.840.10008.5.1.4.1.1.104": "a document",
    "1.2.840.10008.5.1.4.1.1.481": "of radiotherapy",
}
_UNCOMPRESSED = {"1.2.840.10008.1.2": "<I", "1.2.840.10008.1.2.1": "<I", "1.2.840.10008.1.2.2": ">I"}
"""Transfer syntaxes whose pixels lie as they are, and how lengths are written there."""

_TAGS = {
    "series": "0020|000e",
    "image": "0008|0018",
    "kind": "0008|0008",
    "modality": "0008|0060",
    "number": "0020|0013",
    "acquisition": "0020|0012",
    "images_in_acquisition": "0020|1002",
    "slices": "0054|0081",
    "gap": "0018|0088",
    "position": "0020|0032",
    "rows": "0028|0010",
    "columns": "0028|0011",
    "samples": "0028|0002",
    "bits": "0028|0100",
    "frames": "0028|0008",
}


@dataclass(frozen=True)
class Slice:
    """A file of a series.

    Attributes:
        path: of the file.
        tags: what stands in its header, as text, by the names of ``_TAGS``.
        position: of its first voxel, LPS mm.
        direction: (3, 3), columns along row, column and normal.
        size: voxels along each axis; of several frames the third one's too.
        spacing: their lengths in mm; the third one is what the header says of it.
        pixel: SimpleITK's number of the pixel type.
    """

    path: Path
    tags: Mapping[str, str]
    position: np.ndarray
    direction: np.ndarray
    size: tuple[int, ...]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    pixel: int = field(default=0)

    def whole(self, name: str) -> int | None:
        """A tag as a whole number; None where it is absent or none."""
        try:
            return int(self.tags.get(name, ""))
        except ValueError:
            return None


def claims_dicom(path: Path) -> bool:
    """Whether the name says that this is DICOM (hidden files, such as macOS's ``._`` twins, do not)."""
    return path.name.lower().endswith(DICOM_SUFFIXES) and not path.name.startswith(".")


def is_dicom_file(path: str | Path) -> bool:
    """Whether this is a DICOM file by its content, or claims to be one by its name (``.dcm``, ``.dicom``, ``.ima``).

    Only regular files are opened; what cannot be is judged by its name. Folders are no files.

    >>> is_dicom_file("nowhere/IM0001"), is_dicom_file("nowhere/1.dcm")
    (False, True)
    """
    path = Path(path)
    if path.is_dir():
        return False
    return claims_dicom(path) or begins_as_dicom(path)


def begins_as_dicom(path: Path) -> bool:
    """Whether this is a regular file that begins as DICOM does."""
    try:
        return is_dicom(first_bytes(path, 256))
    except ScanError:
        return False


def sop_class(path: Path) -> str:
    """The kind of thing that a DICOM file says it is, a UID; empty where it does not."""
    return _meta(first_bytes(path, META_BYTES)).get(0x0002, "")


def read_slice(path: Path) -> Slice:
    """The header of a DICOM image.

    Raises:
        ScanError: no DICOM image, or one that is damaged; the message ends "…: WHY" and names the file.
    """
    require_regular(path)
    head = first_bytes(path, META_BYTES)
    if not is_dicom(head):
        raise ScanError(f"{path} is damaged: it does not begin as DICOM does")
    kind = _meta(head).get(0x0002, "")
    told = next((words for uid, words in _NO_IMAGES.items() if kind == uid or kind.startswith(f"{uid}.")), "")
    if told:
        raise ScanError(f"{path} is DICOM and no image ({told}); put it elsewhere")
    reader = image_reader(path, "dicom")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        lengths = _UNCOMPRESSED.get(_meta(head).get(0x0010, ""))
        if lengths is not None and _pixel_bytes(path, lengths)[1]:
            raise ScanError(f"{path} is truncated: its pixels are cut off") from error
        raise ScanError(f"{path} is damaged or truncated ({path.stat().st_size} bytes)") from error
    keys = set(reader.GetMetaDataKeys())
    tags = {name: reader.GetMetaData(tag).strip(" \x00") for name, tag in _TAGS.items() if tag in keys}
    _require_pixels(path, head, tags)
    direction = np.asarray(reader.GetDirection())
    if direction.size != 9:
        raise ScanError(f"{path} holds an image of {reader.GetDimension()} dimensions; expected slices or a volume")
    origin = np.asarray(reader.GetOrigin())
    size, spacing = tuple(reader.GetSize()), tuple(reader.GetSpacing())
    return Slice(path, tags, origin, direction.reshape(3, 3), size, spacing, int(reader.GetPixelID()))


def _meta(head: bytes) -> dict[int, str]:
    """The texts of a DICOM file's first group (0002), by element."""
    found: dict[int, str] = {}
    at = 132
    while head[at : at + 2] == b"\x02\x00" and at + 12 <= len(head):
        element = struct.unpack_from("<H", head, at + 2)[0]
        long = head[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT")
        length = struct.unpack_from("<I", head, at + 8)[0] if long else struct.unpack_from("<H", head, at + 6)[0]
        at += 12 if long else 8
        found[element] = head[at : at + length].decode("ascii", "replace").strip(" \x00")
        at += length
    return found


def _require_pixels(path: Path, head: bytes, tags: Mapping[str, str]) -> None:
    """Uncompressed pixels are as many as the header says; GDCM reads on behind them where it says too many."""
    lengths = _UNCOMPRESSED.get(_meta(head).get(0x0010, ""))
    try:
        rows, columns, bits = (int(tags[name]) for name in ("rows", "columns", "bits"))
        samples, frames = int(tags.get("samples", 1)), int(tags.get("frames") or 1)
    except (KeyError, ValueError):
        return
    if lengths is None or min(rows, columns, bits, samples, frames) < 1:
        return
    frame = rows * columns * samples * ((bits + 7) // 8) if bits != 1 else (rows * columns * samples + 7) // 8
    held, _ = _pixel_bytes(path, lengths)
    if held is not None and not frame * frames <= held < frame * (frames + 1):
        raise ScanError(
            f"{path} is damaged: its header tells of {frames} × {rows} × {columns} pixels, {frame * frames} bytes, and "
            f"it holds {held} bytes of them"
        )


def _pixel_bytes(path: Path, lengths: str) -> tuple[int | None, bool]:
    """The length of the longest element of pixel data (7FE0,0010), for an icon may come before, and whether one is cut.

    Without such an element, None.
    """
    tag = struct.pack("<HH" if lengths == "<I" else ">HH", 0x7FE0, 0x0010)
    longest: int | None = None
    cut = False
    with open_regular(path) as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at, size = content.find(tag), len(content)
        while at >= 0 and at + 12 <= size:
            explicit = content[at + 4 : at + 6] in (b"OB", b"OW")
            begin = at + (12 if explicit else 8)
            length = struct.unpack_from(lengths, content, begin - 4)[0]
            if begin + length <= size:
                longest = max(length, longest or 0)
            else:
                cut = longest is None
            at = content.find(tag, max(min(begin + length, size), at + 4))
    return longest, cut


def reads_pixels(path: Path) -> bool:
    """Whether the pixels of a file can be decoded."""
    try:
        image_reader(path, "dicom").Execute()
    except RuntimeError:
        return False
    return True


def image_of(path: Path) -> Any:
    """One DICOM file as a SimpleITK image, its header judged first.

    Raises:
        ScanError: as :func:`read_slice`; frames that are not one even stack, see
            :func:`rarevox.transforms.reading.frames.frames_image`.
    """
    found = read_slice(path)
    if found.size[2] > 1:
        require_memory(path, product(found.size) * 8, f"{size_text(found.size)} voxels")
        return frames_image(path)
    return image_reader(path, "dicom").Execute()
