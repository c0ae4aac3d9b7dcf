"""Writing label maps onto the grid of the scan that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from rarevox.pipeline.files import atomic
from rarevox.transforms.reader import Scan, size_text


def write_labels(path: str | Path, labels: np.ndarray, like: Scan) -> Path:
    """Write a label map as ``.nii.gz`` on the grid of ``like``, atomically.

    For a scan that came from NIfTI, the sform and qform with their codes, the voxel sizes and the units are copied as
    they stand in its header, so that every viewer overlays the two. For the other formats, the affine is stored as
    sform and qform with code 1 (scanner) in millimetres.

    Args:
        path: where to; a name that does not end in ``.nii`` or ``.nii.gz`` is refused.
        labels: (X, Y, Z) or (1, X, Y, Z) whole numbers from 0 to 65535; stored as uint8, as uint16 above 255.
        like: the scan, as :func:`rarevox.transforms.reader.read_scan` gave it.

    Returns:
        The path written.

    Raises:
        ValueError: a shape other than the scan's, labels that are not whole numbers or out of range, or a wrong suffix.
        OSError: no space or no permission; an older file of that name is left as it was.

    >>> import tempfile
    >>> scan = Scan(np.zeros((1, 4, 3, 2)), np.diag([1.0, 2.0, 3.0, 1.0]), (Path("scan.mha"),))
    >>> path = write_labels(Path(tempfile.mkdtemp()) / "a_seg.nii.gz", np.ones((4, 3, 2), int), scan)
    >>> nib.load(path).shape, str(nib.load(path).get_data_dtype())
    ((4, 3, 2), 'uint8')
    """
    return _write(Path(path), _whole(np.asarray(labels), like), like, 1.0)


def write_shares(path: str | Path, values: np.ndarray, like: Scan) -> Path:
    """Write numbers from 0 to 1, kept as whole ones, as ``.nii.gz`` on the grid of ``like``, atomically.

    The file holds them with ``scl_slope`` 1/255 or 1/65535, so that every reader which heeds the slope shows 0 to 1. A
    memory-mapped array is written plane by plane.

    Args:
        path: where to.
        values: (X, Y, Z) uint8, 255 for 1, or uint16, 65535 for 1.
        like: the scan, as for :func:`write_labels`.

    Raises:
        ValueError, OSError: as for :func:`write_labels`.
    """
    if values.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"shares are kept as uint8 (255 for 1) or uint16 (65535 for 1), not as {values.dtype}")
    if values.shape != like.shape:
        raise ValueError(f"the map is {size_text(values.shape)} voxels and the scan is {size_text(like.shape)}")
    return _write(Path(path), values, like, 1 / np.iinfo(values.dtype).max)


def _write(path: Path, values: np.ndarray, like: Scan, slope: float) -> Path:
    """The stored values under a scan's header."""
    if not path.name.endswith((".nii.gz", ".nii")):
        raise ValueError(f"maps are written as NIfTI; {path.name} must end in .nii.gz")
    if like.header is not None:
        header = _label_header(like.header)
        values = values.reshape(like.header.get_data_shape()[:3], order="A")  # a 2D image stays 2D
    else:
        header = nib.Nifti1Header()
        header.set_data_shape(values.shape)
        header.set_xyzt_units("mm")
        header.set_qform(like.affine, code=1)
        header.set_sform(like.affine, code=1)
    header.set_data_dtype(values.dtype)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(values, None, header)
    image.header.set_slope_inter(slope, 0.0)  # an image takes a header without its scaling
    with atomic(path) as temporary:
        nib.save(image, temporary)
    return path


def _whole(labels: np.ndarray, like: Scan) -> np.ndarray:
    """The labels as (X, Y, Z) in the smallest unsigned type that holds them."""
    if labels.ndim == 4 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.shape != like.shape:
        raise ValueError(f"the labels are {size_text(labels.shape)} voxels and the scan is {size_text(like.shape)}")
    low, high = labels.min(), labels.max()
    if not 0 <= low <= high <= 65535 or (labels.dtype.kind == "f" and np.any(labels != np.round(labels))):
        raise ValueError(f"labels must be whole numbers from 0 to 65535, not from {low} to {high}")
    return labels.astype(np.uint8 if high <= 255 else np.uint16, copy=False)


def _label_header(header: nib.Nifti1Header) -> Any:
    """A copy of a scan's header with its place in space, and without what belongs to its intensities."""
    kind = nib.Nifti2Header if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header
    # From the bytes, because a conversion between header classes would drop the form codes.
    copy = kind(header.binaryblock, endianness=header.endianness, check=False)
    copy["magic"] = kind.single_magic
    copy["vox_offset"] = 0
    copy.set_slope_inter(1.0, 0.0)
    copy["cal_min"], copy["cal_max"] = 0.0, 0.0
    copy.set_intent("none")
    copy["descrip"] = b"rarevox label map"
    return copy.as_byteswapped("<")
