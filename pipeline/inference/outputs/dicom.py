"""Segmentation and report of a scan that came as DICOM, as DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.bundle import version
from rarevox.pipeline.cohort.rows import FILES
from rarevox.pipeline.dicom.codes import Coded
from rarevox.pipeline.dicom.report import Measured, report_of
from rarevox.pipeline.dicom.segmentation import Maker, segmentation_of
from rarevox.pipeline.dicom.series import is_dicom, source_of, without_identifiers
from rarevox.pipeline.errors import reason_of
from rarevox.pipeline.files import atomic
from rarevox.pipeline.inference.lesions import parts_of
from rarevox.pipeline.inference.outputs.output import Result
from rarevox.transforms.reading.quiet import quietly

if TYPE_CHECKING:
    from rarevox.pipeline.inference.watch import Watch

NO_SERIES = "none: the scan did not come as DICOM"


class DicomObjects:
    """``CASE_seg.dcm`` and ``CASE_report.dcm``; see :mod:`rarevox.pipeline.dicom`.

    They hold what the series says of the patient, as DICOM demands; neither row, name nor message does. Of several
    channels the first one's series is referred to.

    Args:
        kind: ``binary`` or ``labelmap``.
        codes: codes that are given for structures.
    """

    def __init__(self, kind: str = "binary", codes: Mapping[str, Coded] | None = None) -> None:
        self.kind, self.codes = kind, dict(codes or {})

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """Of both files; none where the scan did not come as DICOM."""
        if item.get("image") and not is_dicom(item["image"]):
            return []
        return [f"{item['case']}_seg.dcm", f"{item['case']}_report.dcm"]

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Labels are enough."""
        return None

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Write both."""
        names = self.names(result.item)
        if not names:
            return {"dicom": NO_SERIES}
        image = result.item["image"]
        source = source_of(image[0] if isinstance(image, list) else image, result.grid.affine)
        try:
            made = self._made(result, source)
        except Exception as error:  # of highdicom and pydicom, which may quote what the series says of the patient
            told = without_identifiers(reason_of(error), source[0])
            raise ValueError(f"no DICOM objects can be made of its series: {told}") from None
        for name, one in zip(names, made, strict=True):
            with atomic(folder / name) as temporary, quietly():
                one.save_as(temporary)
        return {FILES: names, "dicom": dict(zip(("segmentation", "report"), names, strict=True))}

    def _made(self, result: Result, source: list[Any]) -> tuple[Any, Any]:
        ml = result.grid.voxel_ml
        measured = {
            name: Measured(float((result.labels == value).sum()) * ml, parts_of(result.labels, value))
            for name, value in result.structures.items()
        }
        maker = Maker(version("rarevox"), "-".join(map(str, result.made.get("models", []))) or "unknown")
        segmentation = segmentation_of(
            result.labels, result.structures, source, maker, kind=self.kind, codes=self.codes
        )
        return segmentation, report_of(measured, segmentation, source, maker, self.codes)
