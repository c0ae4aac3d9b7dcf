"""Reading a scan: any format, several files as channels, one array and one affine, one exception when it fails."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import DTypeLike

from rarevox.transforms.dicom import SeriesError, read_series

AFFINE_TOLERANCE = 1e-3
"""Two affines whose entries differ by no more than this (mm) describe the same grid."""

_NIFTI = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class ScanError(ValueError):
    """A scan cannot be used as it is; the message is one sentence that names the file and the fault.

    Attributes:
        check: the name of the fault: ``missing-file``, ``unreadable``, ``singular-affine``, ``dicom-series`` or
            ``channel-grid``.
    """

    def __init__(self, message: str, *, check: str = "unreadable") -> None:
        super().__init__(message)
        self.check = check


@dataclass(frozen=True)
class Scan:
    """A volume in memory with its place in space.

    Attributes:
        array: (C, X, Y, Z), C-contiguous, in the axis order of the file.
        affine: 4×4 float64, voxel indices to RAS+ millimetres.
        paths: the files or the DICOM folder it came from, one per file read.
        header: the NIfTI header of the first file, or None for the other formats.
        stored_dtype: the type of the voxels in the (first) file, before any scaling.
    """

    array: np.ndarray
    affine: np.ndarray
    paths: tuple[Path, ...]
    header: Any = None
    stored_dtype: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The voxels along each axis of the file."""
        return self.array.shape[1:]  # type: ignore[return-value]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The voxel's edge lengths in millimetres: the lengths of the affine's first three columns."""
        x, y, z = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres (also right for a sheared grid)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)


def read_scan(paths: str | Path | Sequence[str | Path], dtype: DTypeLike | None = np.float32) -> Scan:
    """Read one scan: NIfTI (also MGH) through nibabel; NRRD, MHA and a DICOM series folder through SimpleITK.

    Several files are its channels, in that order. A 4D file holds channels on its last axis; further axes of one are
    dropped, and a 2D image gets one slice. NIfTI scaling (``scl_slope``) is applied, spatial units of metres and
    micrometres become millimetres, and ITK's LPS becomes RAS+.

    Args:
        paths: a file, a folder with one DICOM series, or a sequence of them.
        dtype: the type of the array; None keeps the file's own (the common type when several files differ).

    Raises:
        ScanError: missing, truncated or corrupt, not an image, more than four dimensions, no voxels, an affine that is
            not invertible, a DICOM folder with several series, missing slices or gantry tilt, or files whose shapes or
            affines (beyond ``AFFINE_TOLERANCE``) differ.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
    >>> nib.save(nib.Nifti1Image(np.ones((4, 3, 2), np.int16), np.diag([1.0, 2.0, 3.0, 1.0])), path)
    >>> scan = read_scan([path, path])
    >>> scan.array.shape, str(scan.array.dtype), scan.stored_dtype, scan.spacing_mm
    ((2, 4, 3, 2), 'float32', 'int16', (1.0, 2.0, 3.0))
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
    return Scan(array, first.affine, tuple(files), first.header, first.stored_dtype)


def same_affine(first: np.ndarray, second: np.ndarray, tolerance: float = AFFINE_TOLERANCE) -> bool:
    """Whether no entry of the two affines differs by more than ``tolerance`` (NaN never agrees).

    >>> same_affine(np.eye(4), np.eye(4) + 1e-8), same_affine(np.eye(4), np.eye(4) + 0.002)
    (True, False)
    """
    return bool(np.all(np.abs(np.asarray(first) - np.asarray(second)) <= tolerance))


def _require_same_grid(first: Scan, other: Scan) -> None:
    a, b = first.paths[0], other.paths[0]
    if first.shape != other.shape:
        raise ScanError(
            f"{b} is {size_text(other.shape)} voxels and {a} is {size_text(first.shape)}; channels share one grid",
            check="channel-grid",
        )
    if not same_affine(first.affine, other.affine):
        gap = float(np.abs(first.affine - other.affine).max())
        raise ScanError(
            f"the affines of {a} and {b} differ by {gap:.3g} mm (allowed {AFFINE_TOLERANCE:g})",
            check="channel-grid",
        )


def size_text(shape: Sequence[int]) -> str:
    """A shape in words.

    >>> size_text((4, 3, 2))
    '4×3×2'
    """
    return "×".join(str(size) for size in shape)


def _read_one(path: Path, dtype: DTypeLike | None) -> Scan:
    """One file or one DICOM folder, with every way in which it can fail turned into a ScanError."""
    if not path.exists():
        raise ScanError(f"{path} does not exist", check="missing-file")
    if path.is_file() and path.stat().st_size == 0:
        raise ScanError(f"{path} is empty (0 bytes)")
    try:
        if path.is_dir():
            scan = _from_itk(read_series(path), path)
        elif path.name.lower().endswith(_NIFTI):
            scan = _read_nifti(path, dtype)
        else:
            scan = _read_itk(path)
    except ScanError:
        raise
    except SeriesError as error:
        raise ScanError(str(error), check="dicom-series") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(f"{path} is truncated or corrupt: its compressed data ends early or is damaged") from error
    except PermissionError as error:
        raise ScanError(f"{path} may not be read: permission denied") from error
    except Exception as error:  # a damaged header makes the format libraries raise nearly anything
        raise ScanError(f"{path} cannot be read as an image: {_first_line(error)}") from error
    _require_sound(scan)
    array = np.ascontiguousarray(scan.array if dtype is None else scan.array.astype(dtype, copy=False))
    return Scan(array, scan.affine, (path,), scan.header, scan.stored_dtype)


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
    if not np.all(np.isfinite(scan.affine)) or abs(np.linalg.det(scan.affine[:3, :3])) < 1e-12:
        raise ScanError(
            f"the affine of {path} is singular: an axis has no length or two run the same way", check="singular-affine"
        )


def channels_first(array: np.ndarray, path: Path) -> np.ndarray:
    """Voxels (X, Y), (X, Y, Z), (X, Y, Z, C) or with more axes of one, as (C, X, Y, Z).

    >>> channels_first(np.zeros((4, 3)), Path("a")).shape, channels_first(np.zeros((4, 3, 2, 1, 5)), Path("a")).shape
    ((1, 4, 3, 1), (5, 4, 3, 2))
    """
    shape = array.shape + (1,) * (3 - array.ndim)
    if array.ndim < 2:
        raise ScanError(f"{path} has {array.ndim} dimension(s); expected a volume of 3, or 4 with channels last")
    further = [size for size in shape[3:] if size != 1]
    if len(further) > 1:
        raise ScanError(f"{path} has the size {size_text(shape)}; expected a volume of 3, or 4 with channels last")
    channels = further[0] if further else 1
    return np.moveaxis(array.reshape(*shape[:3], channels, order="F"), -1, 0)


def _read_nifti(path: Path, dtype: DTypeLike | None) -> Scan:
    image = _load_nifti(path)
    if len(image.shape) > 4 and sum(size != 1 for size in image.shape[3:]) > 1:
        channels_first(np.broadcast_to(np.int8(0), image.shape), path)  # refuses before the voxels are read
    if image.get_data_dtype().kind not in "biuf":
        raise ScanError(f"{path} holds {image.get_data_dtype()} voxels; expected whole or real numbers")
    # get_fdata scales integers in the wanted precision, with half the memory of going through float64.
    real = dtype is not None and np.dtype(dtype).kind == "f"
    voxels = image.get_fdata(dtype=dtype, caching="unchanged") if real else np.asanyarray(image.dataobj)
    nifti = isinstance(image.header, nib.Nifti1Header)
    affine = np.array(image.affine, np.float64)
    if nifti:
        affine[:3] *= _MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0)
    stored = str(np.dtype(image.get_data_dtype()).newbyteorder("="))
    array = channels_first(voxels, path)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return Scan(array, affine, (path,), image.header if nifti else None, stored)


def _load_nifti(path: Path) -> Any:
    """A nibabel image; a compressed one is decompressed to its end, so that its checksum is compared.

    nibabel stops reading at the last voxel and never sees the checksum behind it: flipped bits would pass.
    """
    if not path.name.lower().endswith((".nii.gz", ".mgz")):
        return nib.load(path)
    with gzip.open(path) as handle:
        content = io.BytesIO(handle.read())
    image = nib.load(path)  # only its header: which kind of file this is
    return type(image).from_file_map(type(image).make_file_map({"image": content}))


def _read_itk(path: Path) -> Scan:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    return _from_itk(reader.Execute(), path)


def _from_itk(image: Any, path: Path) -> Scan:
    """A SimpleITK image (LPS) as a scan (RAS+): A = diag(−1, −1, 1, 1) · [direction · diag(spacing) | origin]."""
    import SimpleITK

    dimensions = image.GetDimension()
    voxels = SimpleITK.GetArrayFromImage(image)  # (…, Z, Y, X[, component])
    components = image.GetNumberOfComponentsPerPixel() > 1
    order = list(range(dimensions))[::-1] + ([dimensions] if components else [])
    direction = np.asarray(image.GetDirection()).reshape(dimensions, dimensions)
    spacing, origin = np.asarray(image.GetSpacing()), np.asarray(image.GetOrigin())
    affine = np.eye(4)
    used = min(3, dimensions)
    affine[:used, :used] = direction[:used, :used] * spacing[:used]
    affine[:used, 3] = origin[:used]
    array = voxels.transpose(order)
    if components and dimensions == 2:
        array = array[:, :, None, :]
    return Scan(channels_first(array, path), _LPS_TO_RAS @ affine, (path,), None, str(voxels.dtype))


class ScanReader(ImageReader):
    """:func:`read_scan` for MONAI: ``LoadImaged(keys, reader="rarevox.transforms.ScanReader")``.

    The array comes as (C, X, Y, Z) and the metadata say so (``original_channel_dim`` 0), so that
    ``ensure_channel_first=True`` and ``EnsureChannelFirstd`` work as ever. The metadata hold the same few keys for
    every format (``affine``, ``original_affine``, ``spatial_shape``, ``original_channel_dim``, ``space``,
    ``original_dtype``), so that a batch may mix formats.

    ``read`` only notes the names: ``LoadImage`` swallows what a reader's ``read`` raises and tries its other readers,
    which buries the reason; a ScanError raised by ``get_data`` reaches the caller.

    Args:
        dtype: as in :func:`read_scan`; None (the default) leaves the conversion to ``LoadImage(dtype=…)``.
    """

    def __init__(self, *, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.dtype = dtype

    def verify_suffix(self, filename: Any) -> bool:
        """Every name is taken: what cannot be read fails with its reason."""
        return True

    def read(self, data: Any, **kwargs: Any) -> tuple[Path, ...]:
        """The names of the files, as paths; nothing is opened yet."""
        return (Path(data),) if isinstance(data, (str, Path)) else tuple(Path(path) for path in data)

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """The voxels (C, X, Y, Z) and MONAI's metadata.

        Raises:
            ScanError: as :func:`read_scan`.
        """
        scan = read_scan(list(img), dtype=self.dtype)
        return scan.array, {
            MetaKeys.AFFINE: scan.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: scan.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(scan.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
            MetaKeys.SPACE: SpaceKeys.RAS,
            "original_dtype": scan.stored_dtype,
        }
