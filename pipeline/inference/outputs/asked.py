"""Which outputs a call asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rarevox.pipeline.dicom.codes import given_codes
from rarevox.pipeline.inference.atlas import read_atlas
from rarevox.pipeline.inference.outputs.bids import BidsMaps
from rarevox.pipeline.inference.outputs.dicom import DicomObjects
from rarevox.pipeline.inference.outputs.labels import LabelMap
from rarevox.pipeline.inference.outputs.lesions import Lesions
from rarevox.pipeline.inference.outputs.output import Output
from rarevox.pipeline.inference.outputs.preview import Preview
from rarevox.pipeline.inference.outputs.shares import Entropy, Probabilities


@dataclass(frozen=True)
class Asked:
    """What is wanted of each scan besides its label map: plain values, the same in every process of a call.

    Attributes:
        entropy: ``CASE_entropy.nii.gz``.
        probabilities: ``uint8`` or ``uint16`` for ``CASE_prob_STRUCTURE.nii.gz``.
        lesions: rows of ``lesions.csv`` and ``structures.csv``.
        atlas: a file of regions that lesions lie in.
        atlas_names: a file of their names.
        previews: ``CASE_preview.jpg``.
        dicom: ``binary`` or ``labelmap`` for ``CASE_seg.dcm`` and ``CASE_report.dcm``, of scans that came as DICOM.
        codes: of structures in them; see :func:`rarevox.pipeline.dicom.codes.given_codes`.
        layout: ``bids`` writes maps as a BIDS derivative dataset.
        roots: of the BIDS datasets that the scans are from.
    """

    entropy: bool = False
    probabilities: str | None = None
    lesions: bool = False
    atlas: str | None = None
    atlas_names: str | None = None
    previews: bool = False
    dicom: str | None = None
    codes: Mapping[str, Any] = field(default_factory=dict)
    layout: str | None = None
    roots: Sequence[str] = ()


def outputs_of(asked: Asked, config: Mapping[str, Any]) -> list[Output]:
    """The outputs of a call, the label map first.

    Args:
        asked: what is wanted.
        config: the run's configuration, of which the structures count.
    """
    structures, regions = config["structures"], config.get("regions") or {}
    outputs: list[Output] = [LabelMap()]
    if asked.layout == "bids":
        values = config["label_values"][1:]
        outputs = [BidsMaps(structures, values, asked.roots, asked.probabilities, list(regions))]
    elif asked.probabilities:
        outputs.append(Probabilities(list(regions) or structures, asked.probabilities, nested=bool(regions)))
    if asked.entropy:
        outputs.append(Entropy())
    if asked.lesions:
        atlas = None if asked.atlas is None else read_atlas(asked.atlas, asked.atlas_names)
        told: dict[str, Any] = {"probabilities": bool(asked.probabilities), "atlas": atlas, "regions": regions}
        outputs.append(Lesions(structures, config["channels"], **told))
    if asked.dicom:
        outputs.append(DicomObjects(asked.dicom, given_codes(asked.codes, "the codes of structures")))
    if asked.previews:
        outputs.append(Preview())
    return outputs
