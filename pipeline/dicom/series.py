"""The DICOM files that a scan was read from, as what objects made of it refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.data.formats import is_volume
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.extras import install
from rarevox.transforms.dicom import is_dicom_file, is_dicom_folder, series_files
from rarevox.transforms.reading.quiet import quietly

PLACE_MM = 0.01
"""Slices lie where the scan's affine says to this; DICOM has up to 16 letters for a position, scanners use fewer."""

_SEXES = ("M", "F", "O")
_IDENTIFYING = ("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "PatientAddress", "AccessionNumber")
_FILLED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes of type 2, which may be empty but not absent."""


def require_libraries(what: str) -> None:
    """Refuse a request that needs the extra ``dicom`` where it is not installed.

    Raises:
        RequestError: highdicom or pydicom cannot be imported.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise RequestError(f"{what} needs highdicom and pydicom: {install('dicom')} ({error})") from error


def is_dicom(image: str | Path | Sequence[str | Path]) -> bool:
    """Whether a scan (of several channels, the first) came as DICOM."""
    path = Path(image) if isinstance(image, (str, Path)) else Path(image[0])
    if is_volume(path):  # by its name; a million need not be opened
        return False
    return is_dicom_folder(path) if path.is_dir() else is_dicom_file(path)


def source_of(image: str | Path, affine: np.ndarray) -> list[Any]:
    """The headers of the files of a series, in the order of the scan's third axis; of a file of frames, its own.

    Args:
        image: the folder of the series, or one file.
        affine: 4×4, the scan's voxel indices to RAS mm, against which the places of the slices are held.

    Raises:
        ValueError: they are of no place or frame of reference, or lie elsewhere than the scan.
    """
    from pydicom import dcmread

    path = Path(image)
    with quietly():
        files = series_files(path) if path.is_dir() else [path]
        found = [_completed(dcmread(file, stop_before_pixels=True, force=True)) for file in files]
    if any("FrameOfReferenceUID" not in one or not one.FrameOfReferenceUID for one in found):
        raise ValueError("the series names no frame of reference (0020,0052), which DICOM objects made of it need")
    if len(found) == 1 and int(found[0].get("NumberOfFrames") or 1) > 1:
        return found
    if any("ImagePositionPatient" not in one or "ImageOrientationPatient" not in one for one in found):
        raise ValueError(
            "its slices do not say where they lie (ImagePositionPatient), as DICOM objects made of it must"
        )
    row, column = np.asarray(found[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    found.sort(key=lambda one: float(np.asarray(one.ImagePositionPatient, float) @ normal))
    _require_places(found, affine)
    return found


def frame_places(source: Any) -> np.ndarray:
    """How far along the normal of their plane the frames of a file lie, in mm."""
    frames = source.PerFrameFunctionalGroupsSequence
    shared = source.SharedFunctionalGroupsSequence[0]
    plane = shared if "PlaneOrientationSequence" in shared else frames[0]
    row, column = np.asarray(plane.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    places = np.asarray([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], float)
    return np.asarray(places @ np.cross(row, column))


def _require_places(slices: Sequence[Any], affine: np.ndarray) -> None:
    """Slice k lies at A·(0, 0, k), x and y negated (LPS)."""
    places = np.asarray([one.ImagePositionPatient for one in slices], float)
    expected = affine[:3, 3] + np.arange(len(slices))[:, None] * affine[:3, 2]
    apart = float(np.abs(places - expected * [-1, -1, 1]).max())
    if not apart <= max(PLACE_MM, 0.1 * float(np.linalg.norm(affine[:3, 2]))):  # as far as reading allows slices to
        raise ValueError(f"its slices lie up to {apart:.3g} mm from where the scan has them")


def _completed(dataset: Any) -> Any:
    """With empty values for what DICOM demands and files lack, and for what is not DICOM's word."""
    for keyword in _FILLED:
        if keyword not in dataset or dataset[keyword].value is None:
            setattr(dataset, keyword, "")
    if dataset.PatientSex not in _SEXES:
        dataset.PatientSex = ""
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime"):
        text = str(dataset[keyword].value)
        if text and not text.replace(".", "").isdigit():
            setattr(dataset, keyword, "")
    return dataset


def without_identifiers(text: str, dataset: Any) -> str:
    """A message without the values of what identifies the patient, should a library have quoted them."""
    for keyword in _IDENTIFYING:
        value = str(dataset.get(keyword, "") or "")
        for part in [value, *value.replace("^", " ").split()]:
            if len(part) > 1:
                text = text.replace(part, "…")
    return text
