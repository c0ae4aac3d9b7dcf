"""One DICOM series as one volume, refused where its slices are not one even stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class SeriesError(ValueError):
    """A folder of DICOM files is not one usable series; the message names the folder and the fault."""


def is_dicom_folder(folder: str | Path) -> bool:
    """Whether ``folder`` holds at least one DICOM file directly (told by its ``DICM`` mark or its ``.dcm`` name)."""
    return any(_is_dicom(path) for path in sorted(Path(folder).iterdir()) if path.is_file())


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # UIDs end in digits after a dot; a scan.nii.gz is not asked
        return False
    with path.open("rb") as handle:
        handle.seek(128)
        return handle.read(4) == b"DICM"


def read_series(folder: Path) -> Any:
    """The one series in ``folder`` as a SimpleITK image, after its slices' places were checked.

    Raises:
        SeriesError: no DICOM files, more than one series, slices that differ in size or direction, that lie at one
            position, slide (gantry tilt) or leave a gap.
    """
    import SimpleITK

    if not is_dicom_folder(folder):
        raise SeriesError(f"the folder {folder} holds no DICOM files; give a file, or a folder with one series")
    series = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = (
            f"{len(series)} series ({', '.join(series[:3])}{', …' if len(series) > 3 else ''})" if series else "none"
        )
        raise SeriesError(f"expected one DICOM series in {folder}, found {found}; put each series into its own folder")
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    _require_even_slices(names, folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute()


def _require_even_slices(names: Sequence[str], folder: Path) -> None:
    """Refuse a series that is not one stack of parallel, evenly spaced, unsheared slices."""
    if len(names) < 2:
        return
    import SimpleITK

    positions, directions, sizes = [], [], set()
    for name in names:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(name)
        reader.ReadImageInformation()
        positions.append(reader.GetOrigin())
        directions.append(reader.GetDirection())
        sizes.add(reader.GetSize()[:2])
    if len(sizes) > 1:
        raise SeriesError(
            f"the slices in {folder} differ in size: {', '.join('×'.join(map(str, size)) for size in sorted(sizes))}"
        )
    axes = np.asarray(directions).reshape(len(names), 3, 3)
    if np.abs(axes - axes[0]).max() > 1e-3:
        raise SeriesError(f"the slices in {folder} are not parallel; it mixes series (a localiser?)")
    steps = np.diff(np.asarray(positions), axis=0)
    along = steps @ axes[0][:, 2]
    gap = float(np.median(np.abs(along)))
    if gap < 1e-6 or np.abs(along).min() < 0.01 * gap:
        raise SeriesError(f"{folder} holds several slices at one position; it mixes several acquisitions")
    across = np.linalg.norm(steps - along[:, None] * axes[0][:, 2], axis=1)
    if across.max() > 0.02 * gap + 1e-3:
        raise SeriesError(f"{folder} was taken with gantry tilt (slices slide by {across.max():.3g} mm); straighten it")
    if np.abs(np.abs(along) - gap).max() > 0.1 * gap:
        worst = int(np.argmax(np.abs(np.abs(along) - gap)))
        raise SeriesError(
            f"slices are missing in {folder}: {abs(along[worst]):.3g} mm between slices {worst + 1} and {worst + 2}, "
            f"{gap:.3g} mm elsewhere"
        )
