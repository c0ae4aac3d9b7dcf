"""Volumes and counts as a DICOM structured report after template TID 1500 (Measurement Report)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rarevox.pipeline.dicom.codes import Code, Coded, coded
from rarevox.pipeline.dicom.segmentation import MAKER, UTF_8, Maker, concept, long_string, series_number
from rarevox.transforms.reading.quiet import quietly

VOLUME = Code("118565006", "SCT", "Volume")
PARTS = Code("246205007", "SCT", "Quantity")
MILLILITRE = Code("ml", "UCUM", "milliliter")
COUNTS = Code("{counts}", "UCUM", "Counts")
_PROCEDURES = {
    "MR": Code("113091000", "SCT", "Magnetic resonance imaging"),
    "CT": Code("77477000", "SCT", "Computed tomography"),
    "PT": Code("82918005", "SCT", "Positron emission tomography"),
}
_IMAGING = Code("363679005", "SCT", "Imaging procedure")


class Measured(NamedTuple):
    """What is reported of a structure: its volume, and how many parts that do not touch it has."""

    volume_ml: float
    parts: int


def report_of(
    measured: Mapping[str, Measured],
    segmentation: Any,
    source: Sequence[Any],
    maker: Maker,
    codes: Mapping[str, Coded] | None = None,
) -> Any:
    """The report as a highdicom (pydicom) dataset: a group for each structure, absent ones with 0.

    A group refers to the structure's segment, by the same tracking identifier and UID, and to the series.

    Args:
        measured: of each structure, in the order of the segments.
        segmentation: of :func:`rarevox.pipeline.dicom.segmentation.segmentation_of`.
        source: the series.
        maker: named as the observer.
        codes: as the segmentation's.
    """
    import highdicom
    from highdicom import sr

    with quietly():
        groups = [
            _group(number, name, found, segmentation, source, coded(name, codes))
            for number, (name, found) in enumerate(measured.items(), start=1)
        ]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=_observer(maker)),
            procedure_reported=concept(_PROCEDURES.get(source[0].get("Modality", ""), _IMAGING)),
            imaging_measurements=groups,
            title=concept(Code("126000", "DCM", "Imaging Measurement Report")),
            language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
                concept(Code("en", "RFC5646", "English"))
            ),
            referenced_images=list(source),
        )
        made = sr.EnhancedSR(
            evidence=[*source, segmentation],
            content=content[0],
            series_instance_uid=highdicom.UID(),
            series_number=series_number(source[0]) + 1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=long_string(maker.version),
            device_serial_number=long_string(maker.model),
            series_description=f"{MAKER} measurements",
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
        made.SpecificCharacterSet = UTF_8
    return made


def _observer(maker: Maker) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes as known

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=maker.uid, name=MAKER, manufacturer_name=MAKER, model_name=MAKER, serial_number=long_string(maker.model)
    )
    return sr.ObserverContext(observer_type=known.DCM.Device, observer_identifying_attributes=device)


def _group(number: int, name: str, found: Measured, segmentation: Any, source: Sequence[Any], code: Coded) -> Any:
    """The measurements of one structure (TID 1411)."""
    from highdicom import sr

    described = next(one for one in segmentation.SegmentSequence if one.SegmentNumber == number)
    version = str(described.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=described.TrackingUID, identifier=described.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(source[0].SeriesInstanceUID),
        ),
        finding_type=concept(code.type),
        finding_category=concept(code.category),
        algorithm_id=sr.AlgorithmIdentification(name=MAKER, version=version),
        measurements=[
            sr.Measurement(name=concept(VOLUME), value=found.volume_ml, unit=concept(MILLILITRE)),
            sr.Measurement(name=concept(PARTS), value=found.parts, unit=concept(COUNTS)),
        ],
    )
