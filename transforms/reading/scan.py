"""A volume in memory with its place in space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.transforms.reading import geometry
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.geometry import size_text


@dataclass(frozen=True)
class Scan:
    """A volume in memory with its place in space.

    Attributes:
        array: (C, X, Y, Z), C-contiguous, in the axis order of the file.
        affine: 4×4 float64, voxel indices to RAS+ millimetres.
        paths: the files or the DICOM folder it came from, one per file read.
        header: the NIfTI header of the first file, or None for the other formats.
        stored_dtype: the type of the voxels in the (first) file, before any scaling.
        warnings: sentences about what is odd, though it could be read.
    """

    array: np.ndarray
    affine: np.ndarray
    paths: tuple[Path, ...]
    header: Any = None
    stored_dtype: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The voxels along each axis of the file."""
        return self.array.shape[1:]  # type: ignore[return-value]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The voxel's edge lengths in millimetres: the lengths of the affine's first three columns."""
        return geometry.spacing_mm(self.affine)

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres (also right for a sheared grid)."""
        return geometry.voxel_ml(self.affine)


def channels_first(array: np.ndarray, path: Path) -> np.ndarray:
    """Voxels (X, Y), (X, Y, Z), (X, Y, Z, C) or with more axes of one, as (C, X, Y, Z).

    >>> channels_first(np.zeros((4, 3)), Path("a")).shape, channels_first(np.zeros((4, 3, 2, 1, 5)), Path("a")).shape
    ((1, 4, 3, 1), (5, 4, 3, 2))
    """
    channels, *shape = shape_with_channels(array.shape, path)
    return np.moveaxis(array.reshape(*shape, channels, order="F"), -1, 0)


def shape_with_channels(shape: tuple[int, ...], path: Path) -> tuple[int, int, int, int]:
    """The size (C, X, Y, Z) of a file's axes, as :func:`channels_first` has it.

    Raises:
        ScanError: one axis, or several behind the third that are longer than one.

    >>> shape_with_channels((4, 3, 2, 1, 5), Path("a"))
    (5, 4, 3, 2)
    """
    if len(shape) < 2:
        raise ScanError(f"{path} has {len(shape)} dimension(s); expected a volume of 3, or 4 with channels last")
    x, y, z, *further = *shape, *(1,) * (3 - len(shape))
    channels = [size for size in further if size != 1]
    if len(channels) > 1:
        raise ScanError(f"{path} has the size {size_text(shape)}; expected a volume of 3, or 4 with channels last")
    return (channels[0] if channels else 1), x, y, z


def empty_view(shape: tuple[int, ...], path: Path) -> np.ndarray:
    """An array of a size in the file's axes, as (C, X, Y, Z), that takes no memory: for grids without voxels."""
    return channels_first(np.broadcast_to(np.uint8(0), shape), path)


def voxels_text(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """What a header declares, in words.

    >>> voxels_text((4, 3), np.dtype(np.int16))
    '4×3 voxels of int16'
    """
    return f"{size_text(shape)} voxels of {dtype.newbyteorder('=')}"
