"""Reading a scan: any format, several files as channels, one array and one affine, one exception when it fails."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from rarevox.transforms.dicom import SeriesError, read_series
from rarevox.transforms.reading.content import content_of
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import require_regular
from rarevox.transforms.reading.geometry import (
    AFFINE_TOLERANCE,
    odd_spacing,
    require_affine,
    same_affine,
    size_text,
    spacing_mm,
)
from rarevox.transforms.reading.itk import from_itk, read_itk
from rarevox.transforms.reading.nifti import forms_mm, header_path, read_nifti
from rarevox.transforms.reading.scan import Scan, channels_first
from rarevox.transforms.reading.slices import image_of

__all__ = [
    "AFFINE_TOLERANCE",
    "Scan",
    "ScanError",
    "channels_first",
    "forms_mm",
    "odd_spacing",
    "read_grid",
    "read_scan",
    "same_affine",
    "size_text",
    "spacing_mm",
]


def read_scan(paths: str | Path | Sequence[str | Path], dtype: DTypeLike | None = np.float32) -> Scan:
    """Read one scan: NIfTI (also MGH) through nibabel; NRRD, MHA and a DICOM series folder through SimpleITK.

    Several files are its channels, in that order. A 4D file holds channels on its last axis; further axes of one are
    dropped, and a 2D image gets one slice. NIfTI scaling (``scl_slope``) is applied, spatial units of metres and
    micrometres (NIfTI, NRRD) become millimetres, and ITK's LPS becomes RAS+. What a file holds is told by its content,
    whatever its suffix; only regular files are opened, and of those no more is read than their headers declare.

    Args:
        paths: a file, a folder with one DICOM series, or a sequence of them.
        dtype: the type of the array; None keeps the file's own (the common type when several files differ).

    Raises:
        ScanError: missing, truncated or corrupt, no regular file, not an image, more than four dimensions, no voxels,
            more than its file or the memory can hold, an affine with which no figure could be right, a DICOM folder
            with several series, damaged, missing or repeated slices or gantry tilt, or files whose shapes or affines
            (beyond ``AFFINE_TOLERANCE``) differ.

    >>> import nibabel as nib, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
    >>> ramp = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    >>> nib.save(nib.Nifti1Image(ramp, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    >>> scan = read_scan([path, path])
    >>> scan.array.shape, str(scan.array.dtype), scan.stored_dtype, scan.spacing_mm, scan.warnings
    ((2, 4, 3, 2), 'float32', 'int16', (1.0, 2.0, 3.0), ())
    """
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not files:
        raise ScanError("no file was named; give at least one")
    scans = [_read_one(path, dtype) for path in files]
    first = scans[0]
    if len(scans) == 1:
        return first
    for other in scans[1:]:
        _require_same_grid(first, other)
    array = np.concatenate([scan.array for scan in scans])
    warnings = tuple(f"{scan.paths[0].name}: {text}" for scan in scans for text in scan.warnings)
    return Scan(array, first.affine, tuple(files), first.header, first.stored_dtype, warnings)


def read_grid(path: str | Path) -> Scan:
    """Where a scan lies in space, without its voxels: the array is a view that takes no memory.

    Affine and header are those of :func:`read_scan`, to the bit. A DICOM series is read whole.

    Raises:
        ScanError: as :func:`read_scan`, of what the header can tell.
    """
    return _read_one(Path(path), None, voxels=False)


def _require_same_grid(first: Scan, other: Scan) -> None:
    a, b = first.paths[0], other.paths[0]
    if first.shape != other.shape:
        raise ScanError(
            f"{b} is {size_text(other.shape)} voxels and {a} is {size_text(first.shape)}; channels share one grid: "
            "register and resample it to that one",
            check="channel-grid",
        )
    if not same_affine(first.affine, other.affine):
        gap = float(np.abs(first.affine - other.affine).max())
        raise ScanError(
            f"the affines of {a} and {b} differ by {gap:.3g} mm (allowed {AFFINE_TOLERANCE:g}); resample one to "
            "the other's grid",
            check="channel-grid",
        )


def _read_one(path: Path, dtype: DTypeLike | None, *, voxels: bool = True) -> Scan:
    """One file or one DICOM folder, with every way in which it can fail turned into a ScanError."""
    try:
        scan = _read_any(path, dtype, voxels=voxels)
        _require_sound(scan)
        if not voxels:
            return replace(scan, paths=(path,))
        array = np.ascontiguousarray(scan.array if dtype is None else scan.array.astype(dtype, copy=False))
    except ScanError:
        raise
    except SeriesError as error:
        raise ScanError(str(error), check="dicom-series") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(f"{path} is truncated or corrupt: its compressed data ends early or is damaged") from error
    except PermissionError as error:
        raise ScanError(f"{path} may not be read: permission denied") from error
    except MemoryError as error:
        raise ScanError(f"{path} takes more memory than there is") from error
    except Exception as error:  # a damaged header makes the format libraries raise nearly anything
        raise ScanError(f"{path} cannot be read as an image: {_first_line(error)}") from error
    spacing = odd_spacing(scan.affine)
    warnings = (*scan.warnings, *([spacing] if spacing else []), *_constant_channels(array))
    return Scan(array, scan.affine, (path,), scan.header, scan.stored_dtype, warnings)


def _read_any(path: Path, dtype: DTypeLike | None, *, voxels: bool) -> Scan:
    if path.is_dir():
        image, warnings = read_series(path)
        return replace(from_itk(image, path), warnings=tuple(warnings))
    require_regular(path)
    path = header_path(path)
    content = content_of(path)
    if content.kind == "dicom":
        return from_itk(image_of(path), path)
    if content.kind in ("nrrd", "metaimage"):
        return read_itk(path, content.kind, voxels=voxels)
    return read_nifti(path, content, dtype, voxels=voxels)


def _constant_channels(array: np.ndarray) -> list[str]:
    """A sentence for every channel with one value throughout; the first other value ends the search."""
    found = []
    for number, channel in enumerate(array):
        if all((plane == channel[0, 0, 0]).all() for plane in channel):
            which = f" of channel {number + 1}" if len(array) > 1 else ""
            found.append(f"every voxel{which} is {channel[0, 0, 0]:g}: it carries nothing")
    return found


def _first_line(error: Exception) -> str:
    """The telling line of a library's message: ITK puts its own after the file and line of its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception thrown", "ITK ERROR: Image", "/"))]
    return (told or lines or [type(error).__name__])[-1].replace("sitk::ERROR: ", "")


def _require_sound(scan: Scan) -> None:
    path = scan.paths[0]
    if 0 in scan.array.shape:
        raise ScanError(f"{path} holds no voxels (its size is {size_text(scan.array.shape)})")
    if scan.array.dtype.kind not in "biuf":
        raise ScanError(f"{path} holds {scan.array.dtype} voxels; expected whole or real numbers")
    require_affine(scan.affine, path)
