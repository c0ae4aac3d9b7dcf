"""The work of a service: from an uploaded file to the answer, with a model that is loaded once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.dicom.codes import Coded
from rarevox.pipeline.dicom.rules import parse_rule
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.inference.calls.station import grid_of
from rarevox.pipeline.inference.outputs.dicom import DicomObjects
from rarevox.pipeline.inference.outputs.labels import LabelMap, volumes_ml
from rarevox.pipeline.inference.outputs.output import Result
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.service.jobs import BODY, OUTPUTS, Answer, Wanted, refusal
from rarevox.pipeline.service.upload import SERIES, UNPACKED, UploadError, scan_in

ATTEMPT = "attempt"
"""The folder of what is made of it."""


class Model:
    """Makes answers of jobs.

    Args:
        segmenter: the run.
        made: how its maps are made, see :func:`rarevox.pipeline.inference.calls.kept.origin`.
        most_bytes: that may be uploaded; four times as many may be unpacked.
        kind: of DICOM segmentations.
        codes: codes that are given for structures.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        made: dict[str, Any],
        most_bytes: int,
        kind: str = "binary",
        codes: dict[str, Coded] | None = None,
    ) -> None:
        self.segmenter, self.made, self.most_bytes = segmenter, made, most_bytes
        config = segmenter.config
        self.structures = dict(zip(config["structures"], config["label_values"][1:], strict=True))
        self.channels, self.composites = list(config["channels"]), dict(config["composites"])
        self.dicom = DicomObjects(kind, codes)

    def __call__(self, job: Wanted) -> Answer:
        """The answer, or a refusal in one sentence that names nothing of this machine."""
        folder = job.folder / ATTEMPT
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that ended its process
        try:
            folder.mkdir()
            image = scan_in(job.folder / BODY, folder, UNPACKED * self.most_bytes)
            return self._answer(job.output, _chosen(image, job.rules), folder)
        except UploadError as error:
            return refusal(error.status, _told(str(error), folder))
        except (RequestError, OSError, ValueError) as error:
            return refusal(422, _told(reason_of(error), folder))

    def _answer(self, output: str, image: str | list[str], folder: Path) -> Answer:
        item = {"case": "upload", "image": image}
        if output in ("seg", "report") and not self.dicom.names(item):
            return refusal(406, f"{output} can be made of DICOM series alone; ask for labels or volumes")
        (found,) = self.segmenter([item])
        if found.labels is None:
            short = found.reason.startswith("memory ran out")
            return refusal(503 if short else 422, _told(found.reason, folder))
        result = Result(found, grid_of(found), self.structures)
        result.composites, result.made = self.composites, self.made
        if output == "volumes":
            content: dict[str, Any] = {"volume_ml": volumes_ml(result), "seconds": round(found.seconds, 3)}
            if found.notes and "warning" in found.notes:
                content["warning"] = _told(str(found.notes["warning"]), folder)
            return Answer(json.dumps(content, ensure_ascii=False).encode() + b"\n", OUTPUTS["volumes"])
        if output == "labels":
            name = LabelMap().write(result, folder, None)["output"]
        else:
            made = self.dicom.write(result, folder, None)["dicom"]
            name = made["segmentation" if output == "seg" else "report"]
        names = {"labels": "labels.nii.gz", "seg": "segmentation.dcm", "report": "report.dcm"}
        return Answer((folder / name).read_bytes(), OUTPUTS[output], name=names[output])


def _told(reason: str, folder: Path) -> str:
    """A reason without the place of the files."""
    names = [folder / name for name in (SERIES, "upload.nii.gz", "upload.nii", "upload.dcm")]
    for place in (*names, folder, folder.parent / BODY, folder.parent):
        reason = reason.replace(str(place), "the upload")
    return reason.replace("choose with --series, or put each into its own folder", "choose with series=RULE")


def _chosen(image: Path, rules: Sequence[str]) -> str | list[str]:
    """The scan of an upload, of several series those that rules choose."""
    if not rules:
        return str(image)
    if not image.is_dir():
        raise UploadError(
            "series=RULE chooses among the series of a ZIP archive, and the upload is one image; leave it out"
        )
    from rarevox.pipeline.dicom.study import survey_series

    found = survey_series([image], [parse_rule(rule) for rule in rules], image.parent / "links")
    if len(found.scans) != 1:
        told = "; ".join(dict.fromkeys(row["reason"] for row in found.left))
        raise UploadError(
            f"{len(found.scans)} scans in the archive fit the rules for series; exactly one must ({told})"
        )
    chosen: str | list[str] = found.scans[0]["image"]
    return chosen
