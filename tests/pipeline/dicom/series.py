"""DICOM series for tests, written by pydicom: complete enough for objects that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

NAME, NUMBER = "Weatherwax^Esmerelda", "PID-77-SECRET"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = tuple(
    np.round([np.cos(0.4), np.sin(0.4), 0.0, -np.sin(0.4) * np.cos(0.3), np.cos(0.4) * np.cos(0.3), np.sin(0.3)], 12)
)
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
    """Write voxels (X, Y, Z) as a series: the first two spacings along row and column, slices along the normal.

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


def write_frames(
    path: Path,
    voxels: np.ndarray,
    order: list[int],
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    orientation: Any = AXIAL,
    origin: tuple[float, float, float] = (-20.0, 10.0, 5.0),
) -> Path:
    """Write voxels (X, Y, Z) as one file of enhanced MR, its frames in an order; stored · 2 − 1 is shown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row, column = np.reshape(orientation, (2, 3))
    data = one_slice(voxels[:, :, 0].T, 1, np.zeros(3), orientation)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    del data.ImagePositionPatient, data.ImageOrientationPatient
    measures, plane, values, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm[1], spacing_mm[0]], spacing_mm[2]
    measures.SpacingBetweenSlices = spacing_mm[2]
    plane.ImageOrientationPatient = [f"{value:.10g}" for value in orientation]
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "2", "-1", "US"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [values]
    data.SharedFunctionalGroupsSequence = [shared]
    data.NumberOfFrames, frames = len(order), []
    for k in order:
        frame, position, content = Dataset(), Dataset(), Dataset()
        place = np.asarray(origin) + k * spacing_mm[2] * np.cross(row, column)
        position.ImagePositionPatient = [f"{value:.10g}" for value in place]
        content.DimensionIndexValues, content.StackID, content.InStackPositionNumber = [k + 1], "1", k + 1
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    organised, index = Dataset(), Dataset()
    organised.DimensionOrganizationUID = index.DimensionOrganizationUID = f"{ROOT}.4"
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00200032, 0x00209113
    data.DimensionOrganizationSequence, data.DimensionIndexSequence = [organised], [index]
    data.PixelData = np.ascontiguousarray(np.stack([voxels[:, :, k].T for k in order]), np.int16).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path
