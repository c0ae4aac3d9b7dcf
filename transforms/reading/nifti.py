"""NIfTI, ANALYZE and MGH: the header judged before a voxel is read, the voxels by nibabel."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike

from rarevox.transforms.reading.content import Content
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import SLACK_BYTES, product
from rarevox.transforms.reading.geometry import size_text
from rarevox.transforms.reading.scan import Scan, channels_first, empty_view, shape_with_channels, voxels_text
from rarevox.transforms.reading.streams import require_volume, small_stream, volume_stream

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of the spatial units' codes (the three low bits of ``xyzt_units``): metre, millimetre, micrometre."""

_CLASSES = {
    "nifti1": nib.Nifti1Image,
    "nifti2": nib.Nifti2Image,
    "pair1": nib.Nifti1Pair,
    "pair2": nib.Nifti2Pair,
    "mgh": nib.MGHImage,
}
_PAIRS = ("pair1", "pair2", "analyze")


def header_path(path: Path) -> Path:
    """The file with the header: that of a pair for its ``.img``, else the file itself.

    >>> header_path(Path("a/scan.img")).name, header_path(Path("a/scan.nii")).name
    ('scan.hdr', 'scan.nii')
    """
    return _beside(path, ".img", ".hdr") if path.name.lower().endswith((".img", ".img.gz")) else path


def read_nifti(path: Path, content: Content, dtype: DTypeLike | None, *, voxels: bool = True) -> Scan:
    """One file, or one pair of them, in nibabel's formats.

    Args:
        path: with the header.
        content: what the file holds.
        dtype: as in :func:`rarevox.transforms.reader.read_scan`.
        voxels: False reads the header alone: the array is a view that takes no memory.

    Raises:
        ScanError: the header contradicts itself or its file. Else whatever nibabel raises.
    """
    kind = _CLASSES.get(content.kind) or _analyze_class(content.head)
    header = _header(kind, content.head, path)
    shape = _require_sound(header, path)
    warnings = [*_pixdim_warnings(header, path), *_slope_warnings(header)]
    nifti = isinstance(header, nib.Nifti1Header)
    if voxels or content.kind == "analyze":  # whose affine may lie in yet another file
        image, array, more = _read_voxels(kind, header, path, content.kind, dtype)
        checked, affine = image.header, np.array(image.affine, np.float64)
        warnings += more
    else:
        checked = _header(kind, content.head, path, check=True)
        affine = np.array(checked.get_best_affine() if nifti else checked.get_affine(), np.float64)
        require_volume(_voxels_path(path, content.kind), _end(header, path), _what(header))
        array = empty_view(shape, path)
    if nifti:
        affine[:3] *= mm_per_unit(header)
    stored = str(np.dtype(header.get_data_dtype()).newbyteorder("="))
    return Scan(array, affine, (path,), checked if nifti else None, stored, tuple(warnings))


def forms_mm(header: Any) -> tuple[np.ndarray, np.ndarray]:
    """The sform and the qform of a NIfTI header, in millimetres."""
    unit = mm_per_unit(header)
    scale = np.diag([unit, unit, unit, 1.0])
    return scale @ header.get_sform(), scale @ header.get_qform()


def mm_per_unit(header: Any) -> float:
    """Millimetres of a NIfTI header's spatial unit; where it names none, they are millimetres.

    >>> header = nib.Nifti1Header()
    >>> header.set_xyzt_units("micron")
    >>> mm_per_unit(header)
    0.001
    """
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def _analyze_class(head: bytes) -> Any:
    """Which of ANALYZE's dialects a header is in, as nibabel tells them."""
    kinds = (nib.Spm2AnalyzeImage, nib.Spm99AnalyzeImage, nib.AnalyzeImage)
    return next((kind for kind in kinds if kind.header_class.may_contain_header(head)), nib.AnalyzeImage)


def _header(kind: Any, head: bytes, path: Path, *, check: bool = False) -> Any:
    """The header as it stands in the file; with ``check`` as nibabel mends it, or refuses it, when it reads."""
    header_class = kind.header_class
    size = header_class.template_dtype.itemsize
    least = header_class._hdrdtype.itemsize if kind is nib.MGHImage else size  # MGH's footer may be absent
    if len(head) < least:
        raise ScanError(f"{path} is truncated: its header ends after {len(head)} of {least} bytes")
    return header_class(head[:size], check=check)


def _require_sound(header: Any, path: Path) -> tuple[int, ...]:
    """The shape that a header declares, of numbers that can be used."""
    if isinstance(header, nib.analyze.AnalyzeHeader) and not 1 <= int(header["dim"][0]) <= 7:
        raise ScanError(f"{path} declares {int(header['dim'][0])} dimensions; expected 2 to 4")
    shape = tuple(int(size) for size in header.get_data_shape())
    if not shape or min(shape) < 0:
        raise ScanError(f"{path} declares the size {size_text(shape)}; expected positive numbers")
    if 0 in shape:
        raise ScanError(f"{path} holds no voxels (its size is {size_text(shape)})")
    shape_with_channels(shape, path)  # refuses what is neither a volume nor channels of one
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError):
        raise ScanError(f"{path} declares a type of voxels that is not known; its header is damaged") from None
    if dtype.kind not in "biuf":
        raise ScanError(f"{path} holds {dtype} voxels; expected whole or real numbers")
    return shape


def _pixdim_warnings(header: Any, path: Path) -> list[str]:
    """Voxel sizes of a NIfTI header that are none: refused where the affine is made of them."""
    if not isinstance(header, nib.Nifti1Header):
        return []
    sizes = [float(size) for size in header["pixdim"][1 : 1 + min(3, int(header["dim"][0]))]]
    if all(math.isfinite(size) and size != 0 for size in sizes):
        return []
    listed = ", ".join(f"{size:g}" for size in sizes)
    if int(header["sform_code"]) <= 0:
        raise ScanError(
            f"{path} has voxels of the sizes {listed} (pixdim) and no sform that says better; correct its header",
            check="singular-affine",
        )
    return [f"its voxel sizes (pixdim) are {listed}; those of its sform are used"]


def _slope_warnings(header: Any) -> list[str]:
    """An intensity slope that is no number, which every reader takes for none."""
    if not isinstance(header, nib.Nifti1Header) or math.isfinite(slope := float(header["scl_slope"])):
        return []
    return [f"its intensity slope (scl_slope) is {slope:g}; voxels are taken as stored"]


def _read_voxels(
    kind: Any, header: Any, path: Path, content: str, dtype: DTypeLike | None
) -> tuple[Any, np.ndarray, list[str]]:
    """nibabel's image, its voxels (C, X, Y, Z), and a warning where the file goes on far behind them."""
    # nibabel scales integers in the wanted precision, with half the memory of going through float64.
    real = dtype is not None and np.dtype(dtype).kind == "f"
    held = product(header.get_data_shape()) * np.dtype(dtype or header.get_data_dtype()).itemsize
    volume_path = _voxels_path(path, content)
    with ExitStack() as stack:
        volume, goes_on = stack.enter_context(volume_stream(volume_path, _end(header, path), _what(header), held))
        streams = {"image": volume}
        if content in _PAIRS:
            streams["header"] = stack.enter_context(small_stream(path))
        if content == "analyze":
            streams["mat"] = stack.enter_context(small_stream(_beside(path, ".hdr", ".mat"), absent=b""))
        image = kind.from_file_map({name: nib.FileHolder(fileobj=stream) for name, stream in streams.items()})
        voxels = image.get_fdata(dtype=dtype, caching="unchanged") if real else np.asanyarray(image.dataobj)
        array = channels_first(voxels, path)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
    more = f"over {SLACK_BYTES >> 20} MiB follow its volume and were not read; is its header right?"
    return image, array, [more] if goes_on else []


def pair_files(header: Path, kind: str) -> tuple[Path, ...]:
    """The files of what a header of a kind of :class:`rarevox.transforms.reading.content.Content` begins, in a fixed
    order: itself, and of pairs that with the voxels and, of ANALYZE, that with the affine where there is one."""
    matrix = _beside(header, ".hdr", ".mat") if kind == "analyze" else None
    more = () if matrix is None or not matrix.exists() else (matrix,)
    return (header, *([_voxels_path(header, kind)] if kind in _PAIRS else []), *more)


def _voxels_path(path: Path, content: str) -> Path:
    return _beside(path, ".hdr", ".img") if content in _PAIRS else path


def _what(header: Any) -> str:
    """What a header declares, in words."""
    return voxels_text(tuple(header.get_data_shape()), np.dtype(header.get_data_dtype()))


def _end(header: Any, path: Path) -> int:
    """The byte at which the voxels end."""
    size = product(header.get_data_shape()) * np.dtype(header.get_data_dtype()).itemsize
    return _offset(header, path) + size


def _offset(header: Any, path: Path) -> int:
    """The byte at which the voxels begin."""
    if isinstance(header, nib.freesurfer.mghformat.MGHHeader):
        return int(header.get_data_offset())
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < 0:
        raise ScanError(f"{path} declares that its voxels begin at byte {offset:g}; its header is damaged")
    return int(offset)


def _beside(path: Path, old: str, new: str) -> Path:
    """The other file of a pair, compressed or not; in capitals where this one is."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    if not name.lower().endswith(old):
        raise ScanError(f"{path} is one of a pair of files but does not end in {old}; give both their names back")
    plain = path.with_name(name[: -len(old)] + (new.upper() if name[-len(old) :].isupper() else new))
    packed = plain.with_name(f"{plain.name}.gz")
    return packed if packed.exists() and not plain.exists() else plain
