"""NRRD and MetaImage headers: what they declare, and the other files that they name, before ITK follows them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rarevox.transforms.reading.content import first_bytes
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import product, require_declared, require_regular
from rarevox.transforms.reading.geometry import size_text

HEADER_BYTES = 1 << 20
LONGEST_LINE = 1 << 16
MOST_FILES = 100_000

_NRRD_BYTES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t")
    + ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t")
    + ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"),
}
_META_BYTES = {
    1: ("MET_CHAR", "MET_UCHAR"),
    2: ("MET_SHORT", "MET_USHORT"),
    4: ("MET_INT", "MET_UINT", "MET_FLOAT", "MET_LONG", "MET_ULONG"),  # MetaImage's long is of 4 bytes
    8: ("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"),
}
_UNIT_MM = {
    1.0: ("mm", "millimeter", "millimeters", "millimetre", "millimetres", ""),
    10.0: ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    1000.0: ("m", "meter", "meters", "metre", "metres"),
    1e-3: ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"),
    1e-6: ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
}
_PATTERN = re.compile(r"%0?\d{0,3}d")


@dataclass(frozen=True)
class Declared:
    """What a header says.

    Attributes:
        shape: voxels along each axis, and components.
        item_bytes: of one number.
        encoding: ``raw``, ``gzip``, ``bzip2`` or ``text``.
        files: those that hold the voxels; empty where they follow the header.
        header_bytes: of the header.
        skipped: bytes before the voxels, in the first of the files that hold them.
        mm_per_unit: of its lengths.
        warnings: sentences.
    """

    shape: tuple[int, ...]
    item_bytes: int
    encoding: str
    files: tuple[Path, ...]
    header_bytes: int
    skipped: int = 0
    mm_per_unit: float = 1.0
    warnings: tuple[str, ...] = ()

    @property
    def data_bytes(self) -> int:
        """Of all voxels, inflated."""
        return product(self.shape) * self.item_bytes


def declared_by(path: Path, kind: str) -> Declared:
    """What a NRRD or MetaImage header declares, held against the files that there are.

    Args:
        path: of the header.
        kind: ``nrrd`` or ``metaimage``.

    Raises:
        ScanError: the header is malformed, names files that are not there, are no regular files or lie outside its
            folder, or declares more than its files can hold.
    """
    text = first_bytes(path, HEADER_BYTES)
    found = _nrrd(path, text) if kind == "nrrd" else _meta_image(path, text)
    try:
        sizes = [require_regular(file).st_size for file in found.files]
    except ScanError as error:
        raise ScanError(f"{path} names a file of voxels that cannot be used: {error}", check=error.check) from error
    present = sum(sizes) if found.files else require_regular(path).st_size - found.header_bytes
    what = f"{size_text(found.shape)} voxels of {found.item_bytes} bytes"
    if found.encoding == "text":  # a digit and a space at the least
        require_declared(path, product(found.shape) * 2 - 1, present, what)
    elif found.encoding != "bzip2":
        require_declared(path, found.skipped + found.data_bytes, present, what, compressed=found.encoding == "gzip")
    return found


def _nrrd(path: Path, content: bytes) -> Declared:
    """NRRD: lines ``field: value`` up to an empty line; https://teem.sourceforge.net/nrrd/format.html."""
    end = re.search(rb"\r?\n\r?\n", content)
    lines = _lines(path, content[: end.start()] if end else content)
    fields = _fields(path, lines[1:], ":")
    shape = _sizes(path, fields.get("sizes", ""), fields.get("dimension", ""))
    item_bytes = _item_bytes(path, fields.get("type", "").lower(), _NRRD_BYTES)
    encodings = {"raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}
    encodings |= dict.fromkeys(("txt", "text", "ascii", "hex"), "text")
    encoding = encodings.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise _malformed(path, f"its encoding is {fields.get('encoding', '')!r}")
    named = fields.get("data file", fields.get("datafile"))
    files = _nrrd_files(path, named, lines) if named is not None else ()
    factor, warnings = _unit(fields.get("space units", fields.get("units", "")))
    skipped = _skip(path, "byte skip", fields.get("byte skip", fields.get("byteskip", "0")))
    skipped += _skip(path, "line skip", fields.get("line skip", fields.get("lineskip", "0")))  # a byte a line, at least
    length = end.end() if end else len(content)
    return Declared(shape, item_bytes, encoding, files, length, skipped, factor, warnings)


def _nrrd_files(path: Path, named: str, lines: list[str]) -> tuple[Path, ...]:
    if named.split(" ")[0] == "LIST":
        at = next(i for i, line in enumerate(lines) if line.lower().startswith(("data file:", "datafile:")))
        return _inside(path, (line for line in lines[at + 1 :] if line.strip()))
    numbered = re.fullmatch(r"(\S+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?", named)
    return _inside(path, _numbered(path, *numbered.groups()[:4]) if numbered and "%" in named else [named])


def _meta_image(path: Path, content: bytes) -> Declared:
    """MetaImage: lines ``Key = Value``, of which ``ElementDataFile`` is the last; https://itk.org/Wiki/MetaIO."""
    end = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][^\r\n]*\r?\n?", content, re.MULTILINE)
    if end is None:
        raise _malformed(path, "it names no ElementDataFile")
    fields = _fields(path, _lines(path, content[: end.end()]), "[=:]")
    shape = _sizes(path, fields.get("dimsize", ""), fields.get("ndims", ""))
    channels = _whole(path, "ElementNumberOfChannels", fields.get("elementnumberofchannels", "1"))
    item_bytes = _item_bytes(path, fields.get("elementtype", "").removesuffix("_ARRAY"), _META_BYTES)
    named = fields["elementdatafile"]
    if named.upper() == "LOCAL":
        files: tuple[Path, ...] = ()
    elif named.split(" ")[0].upper() == "LIST":
        listed = content[end.end() :].decode("utf-8", "replace").splitlines()
        files = _inside(path, (line for line in listed if line.strip()))
    else:
        numbered = re.fullmatch(r"(\S+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)", named)
        files = _inside(path, _numbered(path, *numbered.groups()) if numbered and "%" in named else [named])
    text = fields.get("binarydata", "true").lower() not in ("true", "1")
    packed = fields.get("compresseddata", "false").lower() in ("true", "1")
    skipped = _skip(path, "HeaderSize", fields.get("headersize", "0"))
    encoding = "text" if text else "gzip" if packed else "raw"
    return Declared((*shape, channels), item_bytes, encoding, files, end.end(), skipped)


def _lines(path: Path, content: bytes) -> list[str]:
    lines = content.decode("utf-8", "replace").splitlines()
    if any(len(line) > LONGEST_LINE for line in lines):
        raise _malformed(path, f"it has lines of over {LONGEST_LINE} letters")
    return lines


def _fields(path: Path, lines: Iterable[str], separator: str) -> dict[str, str]:
    """Lines ``key SEPARATOR value`` by key in small letters, without comments and NRRD's ``key:=value``.

    A key given twice is refused: which of them counts is ITK's to say, and not known here.
    """
    found: dict[str, str] = {}
    for line in lines:
        key, *values = re.split(separator, line, maxsplit=1)
        if values and not line.startswith("#") and not values[0].startswith("="):
            name = key.strip().lower()
            if name in found and name != "comment":
                raise _malformed(path, f"it says {key.strip()[:40]!r} twice")
            found[name] = values[0].strip()
    return found


def _sizes(path: Path, listed: str, dimension: str) -> tuple[int, ...]:
    number = _whole(path, "number of dimensions", dimension)
    if number > 8:
        raise _malformed(path, f"it declares {number} dimensions")
    sizes = tuple(_whole(path, "size", size, least=0) for size in listed.split())
    if len(sizes) != number:
        raise _malformed(path, f"it declares {number} dimensions and {len(sizes)} sizes")
    if 0 in sizes:
        raise ScanError(f"{path} holds no voxels (its size is {size_text(sizes)})")
    return sizes


def _whole(path: Path, what: str, text: str, least: int = 1) -> int:
    if not re.fullmatch(r"\d{1,18}", text) or int(text) < least:
        raise _malformed(path, f"its {what} is {text[:40]!r}")
    return int(text)


def _skip(path: Path, what: str, text: str) -> int:
    """Bytes or lines before the voxels; −1 leaves it to the file's size."""
    return 0 if text == "-1" else _whole(path, what, text, least=0)


def _item_bytes(path: Path, name: str, table: dict[int, tuple[str, ...]]) -> int:
    for size, names in table.items():
        if name in names:
            return size
    raise _malformed(path, f"its voxels are of the type {name[:40]!r}")


def _unit(text: str) -> tuple[float, tuple[str, ...]]:
    """Millimetres of the units of NRRD's axes (``"mm" "mm" "mm"``), and a warning where they are not clear."""
    names = {name.strip().lower() for name in re.findall(r'"([^"]*)"', text)}
    factors = {factor for factor, known in _UNIT_MM.items() if names & set(known)}
    known = {name for listed in _UNIT_MM.values() for name in listed}
    if not names - {""}:
        return 1.0, ()
    if len(factors) == 1 and names <= known:
        return factors.pop(), ()
    return 1.0, (f"its units are {text[:60]}; lengths are taken as millimetres",)


def _numbered(path: Path, pattern: str, first: str, last: str, step: str) -> Iterable[str]:
    """The names of a pattern such as ``slice%03d.raw 1 100 1``."""
    numbers = range(int(first), int(last) + (1 if int(step) > 0 else -1), int(step) or 1)
    if len(_PATTERN.findall(pattern)) != 1 or pattern.count("%") != 1 or len(numbers) > MOST_FILES:
        raise _malformed(path, f"it names its files by {pattern[:60]!r}")
    return (pattern % number for number in numbers)


def _inside(path: Path, names: Iterable[str]) -> tuple[Path, ...]:
    """The named files, each in the header's folder or below it."""
    files, folder = [], path.parent
    for name in names:
        given = Path(name.strip())
        if not name.strip() or "\x00" in name:
            raise _malformed(path, "it names a file without a name")
        file = given if given.is_absolute() else folder / given
        if ".." in given.parts or (given.is_absolute() and not given.is_relative_to(folder.resolve())):
            raise ScanError(f"{path} names {name.strip()[:100]}, outside its folder; put that file beside it")
        files.append(file)
        if len(files) > MOST_FILES:
            raise _malformed(path, f"it names over {MOST_FILES} files")
    if not files:
        raise _malformed(path, "it names no files")
    return tuple(files)


def _malformed(path: Path, what: str) -> ScanError:
    return ScanError(f"{path} cannot be read as an image: {what}")
