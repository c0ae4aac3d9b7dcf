"""Copies of volumes with something corrected; the originals are never written to."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from rarevox.pipeline.files import atomic


def corner_gap_mm(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two affines place a corner of a volume, at most.

    >>> corner_gap_mm(np.eye(4), np.diag([1.0, 1.0, 1.1, 1.0]), (4, 4, 11))
    1.0
    """
    corners = np.array([[(i >> axis & 1) * (shape[axis] - 1) for axis in range(3)] + [1] for i in range(8)])
    return float(np.round(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max(), 6))


def write_copy(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write channels (C, X, Y, Z) as NIfTI, atomically; sform and, unless sheared, qform say ``affine``.

    Several channels go onto a last axis.

    Raises:
        OSError: no space or no permission.
    """
    image = nib.Nifti1Image(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if corner_gap_mm(image.get_qform(), affine, array.shape[1:]) > 0.01:
        image.header["qform_code"] = 0
    with atomic(path) as temporary:
        nib.save(image, temporary)
    return path


def by_file(files: tuple[Path, ...], array: np.ndarray) -> list[np.ndarray] | None:
    """The channels (C, X, Y, Z) that each file holds; None where several files hold several channels.

    >>> [part.shape for part in by_file((Path("a"), Path("b")), np.zeros((2, 4, 3, 2)))]
    [(1, 4, 3, 2), (1, 4, 3, 2)]
    """
    if len(files) == 1:
        return [array]
    return [array[[n]] for n in range(len(files))] if len(files) == array.shape[0] else None
