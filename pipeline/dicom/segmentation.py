"""A label map as a DICOM segmentation (SEG) that refers to the series it was made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rarevox.pipeline.dicom.codes import Code, Coded, coded
from rarevox.pipeline.dicom.series import frame_places
from rarevox.pipeline.pictures import OKABE_ITO
from rarevox.transforms.reading.quiet import quietly

KINDS = ("binary", "labelmap")
MAKER = "rarevox"
UTF_8 = "ISO_IR 192"
SERIES_NUMBER = 1000
"""What is added to a series' number for that of its segmentation, and one more for that of its report."""


@dataclass(frozen=True)
class Maker:
    """What made the maps.

    Attributes:
        version: of rarevox.
        model: a digest of the weights, which stands as the serial number of the device.
    """

    version: str
    model: str

    @property
    def uid(self) -> str:
        """A UID of the device, the same for the same weights (2.25 and a name-based UUID)."""
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'rarevox:{self.model}').int}"


def concept(code: Code) -> Any:
    """A code as highdicom has it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def long_string(text: str) -> str:
    r"""A text as DICOM's LO takes it: 64 letters, no backslash.

    >>> long_string("a\\b"), len(long_string(70 * "x"))
    ('a/b', 64)
    """
    return text.replace("\\", "/")[:64].strip() or "-"


def segmentation_of(
    labels: np.ndarray,
    structures: Mapping[str, int],
    source: Sequence[Any],
    maker: Maker,
    *,
    kind: str = "binary",
    codes: Mapping[str, Coded] | None = None,
) -> Any:
    """The segmentation as a highdicom (pydicom) dataset.

    Segment n is the nth structure. Each is described, whether or not it has a voxel. A slice without any is left out of
    a ``binary`` one, which has a frame of single bits for each segment and slice; a ``labelmap`` has one frame of whole
    numbers for each slice.

    Args:
        labels: (X, Y, Z) label values on the series' grid.
        structures: name to label value.
        source: of :func:`rarevox.pipeline.dicom.series.source_of`.
        maker: named as the equipment and the algorithm.
        kind: ``binary`` or ``labelmap``.
        codes: codes that are given for structures, see :func:`rarevox.pipeline.dicom.codes.coded`.

    Raises:
        ValueError: another kind, labels on another grid; what highdicom finds wrong with the series.
    """
    import highdicom

    if kind not in KINDS:
        raise ValueError(f"segmentations are {' or '.join(KINDS)}, not {kind}")
    first = source[0]
    slices = len(source) if len(source) > 1 else int(first.get("NumberOfFrames") or 1)
    if labels.shape != (first.Columns, first.Rows, slices):
        raise ValueError(f"the labels are {labels.shape} voxels, the series {(first.Columns, first.Rows, slices)}")
    with quietly():
        made = highdicom.seg.Segmentation(
            source_images=list(source),
            pixel_array=_in_frames(numbered(labels, structures), first),
            segmentation_type=kind.upper(),
            segment_descriptions=_descriptions(structures, maker, codes),
            series_instance_uid=highdicom.UID(),
            series_number=series_number(first),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=long_string(maker.version),
            device_serial_number=long_string(maker.model),
            content_label="SEGMENTATION",
            content_description=long_string(", ".join(structures)),
            series_description=f"{MAKER} segmentation",
        )
        made.ContentCreatorName = ""  # may be empty, not absent
        made.SpecificCharacterSet = UTF_8  # highdicom takes the series', which may not have the structures' letters
    return made


def numbered(labels: np.ndarray, structures: Mapping[str, int]) -> np.ndarray:
    """Planes (Z, Y, X) of the numbers of segments: n where a voxel has the nth structure's value, else 0.

    >>> numbered(np.array([[[7], [2]]]), {"a": 2, "b": 7}).tolist()
    [[[2], [1]]]
    """
    planes = np.ascontiguousarray(labels.transpose(2, 1, 0))
    out = np.zeros(planes.shape, np.uint8 if len(structures) < 256 else np.uint16)
    for number, value in enumerate(structures.values(), start=1):
        out[planes == value] = number
    return out


def _in_frames(planes: np.ndarray, source: Any) -> np.ndarray:
    """Planes along the normal in the order in which a file of several frames has them; those of slices stay."""
    if "PerFrameFunctionalGroupsSequence" not in source:
        return planes
    order = np.argsort(frame_places(source))
    out = np.empty_like(planes)
    out[order] = planes
    return out


def series_number(source: Any) -> int:
    """The number of the segmentation's series.

    >>> series_number({"SeriesNumber": 7}), series_number({})
    (1007, 1000)
    """
    number = source.get("SeriesNumber")
    return SERIES_NUMBER + (int(number) if number is not None and 0 < int(number) < 1 << 30 else 0)


def _colour(number: int) -> Any:
    """The colour in which a segment is best shown: the pictures', over and over (without black, the last)."""
    from highdicom.color import CIELabColor

    text = OKABE_ITO[(number - 1) % (len(OKABE_ITO) - 1)]
    return CIELabColor.from_rgb(*(int(text[at : at + 2], 16) for at in (1, 3, 5)))


def _descriptions(structures: Mapping[str, int], maker: Maker, codes: Mapping[str, Coded] | None) -> list[Any]:
    """A description of each segment."""
    import highdicom
    from pydicom.sr.codedict import codes as known

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MAKER,
        family=known.DCM.ArtificialIntelligence,
        version=long_string(maker.version),
        parameters={"weights": maker.model},
    )
    found = []
    for number, name in enumerate(structures, start=1):
        code = coded(name, codes)
        described = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=long_string(name),
            segmented_property_category=concept(code.category),
            segmented_property_type=concept(code.type),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=highdicom.UID(),
            tracking_id=long_string(name),
            display_color=_colour(number),
        )
        if code.side is not None:
            described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
                concept(code.side)
            ]
        found.append(described)
    return found
