"""DICOM series for tests, written slice by slice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK

TURN = np.radians(30.0)
# Rows and columns of a slice turned by 30° about the patient's left-right axis (LPS).
ROW = np.array([1.0, 0.0, 0.0])
COLUMN = np.array([0.0, np.cos(TURN), np.sin(TURN)])
NORMAL = np.cross(ROW, COLUMN)


def write_series(
    folder: Path,
    voxels: np.ndarray,
    positions: np.ndarray | None = None,
    *,
    series: str = "1.2.3",
    row: np.ndarray = ROW,
    prefix: str = "s",
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write voxels (X, Y, Z) as one file per slice; 0.8 × 1.2 mm pixels, slices 2.5 mm apart from (5, −7, 11) LPS.

    ``tags`` are further ones of every slice, or in place of those written here.
    """
    folder.mkdir(exist_ok=True)
    if positions is None:
        positions = np.array([5.0, -7.0, 11.0]) + 2.5 * np.arange(voxels.shape[2])[:, None] * NORMAL
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, position in enumerate(positions):
        image = SimpleITK.GetImageFromArray(voxels[:, :, number].T[None])
        image.SetSpacing((0.8, 1.2, 2.5))
        written = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{series}.{number + 1}",
            "0020|000d": "1.2.9",
            "0020|000e": series,
            "0020|0013": str(number + 1),
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.6f}" for value in (*row, *np.cross(NORMAL, row))),
            **(tags or {}),
        }
        direction = np.stack([row, np.cross(NORMAL, row), NORMAL], axis=1)
        image.SetDirection(direction.reshape(-1).tolist())
        image.SetOrigin(position.tolist())
        for key, value in written.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{prefix}{(number * 7) % 11:02d}.dcm"))  # file names in another order
        writer.Execute(image)
    return folder
