"""NRRD, MetaImage and DICOM through SimpleITK, and its images (LPS) as scans (RAS+)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rarevox.transforms.reading.detached import declared_by
from rarevox.transforms.reading.files import require_memory
from rarevox.transforms.reading.geometry import size_text
from rarevox.transforms.reading.scan import Scan, channels_first, empty_view

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_READERS = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO", "dicom": "GDCMImageIO"}


def read_itk(path: Path, kind: str, *, voxels: bool = True) -> Scan:
    """One NRRD or MetaImage file.

    Args:
        path: of the header, or of the file that holds both.
        kind: ``nrrd`` or ``metaimage``; no other of ITK's formats is tried on the file.
        voxels: False reads the header alone: the array is a view that takes no memory.

    Raises:
        ScanError: as :func:`rarevox.transforms.reading.detached.declared_by`, or too large for the memory. Else
            whatever SimpleITK raises.
    """
    declared = declared_by(path, kind)
    if voxels:
        what = f"{size_text(declared.shape)} voxels of {declared.item_bytes} bytes"
        require_memory(path, 2 * declared.data_bytes, what)  # SimpleITK's image, and a copy of it
    scan = _from_reader(image_reader(path, kind), path, voxels=voxels)
    affine = scan.affine.copy()
    affine[:3] *= declared.mm_per_unit
    return Scan(scan.array, affine, (path,), None, scan.stored_dtype, declared.warnings)


def image_reader(path: Path, kind: str) -> Any:
    """SimpleITK's reader of a file in one format."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_READERS[kind])
    reader.SetFileName(str(path))
    return reader


def _from_reader(reader: Any, path: Path, *, voxels: bool) -> Scan:
    if voxels:
        return from_itk(reader.Execute(), path)
    reader.ReadImageInformation()
    size, components = tuple(reader.GetSize()), reader.GetNumberOfComponents()
    shape = (*size, *(1,) * (3 - len(size)), components) if components > 1 else size
    return Scan(empty_view(shape, path), affine_of(reader), (path,))


def affine_of(image: Any) -> np.ndarray:
    """The affine (RAS+) of a SimpleITK image or reader (LPS): diag(−1, −1, 1, 1) · [direction · spacing | origin]."""
    dimensions = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(dimensions, dimensions)
    spacing, origin = np.asarray(image.GetSpacing()), np.asarray(image.GetOrigin())
    affine = np.eye(4)
    used = min(3, dimensions)
    affine[:used, :used] = direction[:used, :used] * spacing[:used]
    affine[:used, 3] = origin[:used]
    return np.asarray(_LPS_TO_RAS @ affine)


def from_itk(image: Any, path: Path) -> Scan:
    """A SimpleITK image as a scan."""
    import SimpleITK

    dimensions = image.GetDimension()
    voxels = SimpleITK.GetArrayFromImage(image)  # (…, Z, Y, X[, component])
    components = image.GetNumberOfComponentsPerPixel() > 1
    order = list(range(dimensions))[::-1] + ([dimensions] if components else [])
    array = voxels.transpose(order)
    if components and dimensions == 2:
        array = array[:, :, None, :]
    return Scan(channels_first(array, path), affine_of(image), (path,), None, str(voxels.dtype))
