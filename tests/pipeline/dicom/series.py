"""DICOM series for tests, written by pydicom: complete enough for objects that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

NAME, NUMBER = "Weatherwax^Esmerelda", "PID-77-SECRET"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = tuple(np.round([np.cos(0.4), np.sin(0.4), 0.0, -np.sin(0.4) * np.cos(0.3), np.cos(0.4) * np.cos(0.3), np.sin(0.3)], 12))
ROOT = "1.2.826.0.1.3680043.8.498"


def one_slice(plane: np.ndarray, number: int, position: np.ndarray, orientation: Any, **tags: Any) -> FileDataset:
    """A slice (Y, X) of an MR series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.3.{tags.get('series', 1)}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    series = tags.pop("series", 1)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = NAME, NUMBER, "19500607", "F"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.2.{series}"
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = f"{ROOT}.9", ""
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20260102", "101112", "S1", "A1"
    data.ReferringPhysicianName, data.Manufacturer, data.Modality = "", "M", "MR"
    data.SeriesNumber, data.InstanceNumber, data.SeriesDescription = series, number, f"series {series}"
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "SE", "NONE", "", "3D"
    data.EchoTime, data.EchoTrainLength, data.RepetitionTime, data.PatientPosition = 1, 1, 1, "HFS"
    data.Rows, data.Columns = plane.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.ImagePositionPatient = [f"{value:.10g}" for value in position]
    data.ImageOrientationPatient = [f"{value:.10g}" for value in orientation]
    for key, value in tags.items():
        setattr(data, key, value)
    data.PixelData = np.ascontiguousarray(plane, np.int16).tobytes()
    return data


def write(
    folder: Path,
    voxels: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    orientation: Any = AXIAL,
    origin: tuple[float, float, float] = (-20.0, 10.0, 5.0),
    backwards: bool = False,
    series: int = 1,
    **tags: Any,
) -> Path:
    """Write voxels (X, Y, Z) as a series: pixels of the first two spacings along row and column, slices along the normal.

    ``backwards`` numbers the slices and files against the normal, as many scanners do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.reshape(orientation, (2, 3))
    normal, count = np.cross(row, column), voxels.shape[2]
    for k in range(count):
        number = count - k if backwards else k + 1
        place = np.asarray(origin) + k * spacing_mm[2] * normal
        data = one_slice(voxels[:, :, k].T, number, place, orientation, series=series, **tags)
        data.PixelSpacing = [spacing_mm[1], spacing_mm[0]]  # between rows, between columns
        data.SliceThickness = spacing_mm[2]
        data.save_as(folder / f"IM{series}{number:04}.dcm", enforce_file_format=True)
    return folder
