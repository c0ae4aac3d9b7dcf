"""The voxels of a case that some threshold could label, kept with their probabilities: few, and on the disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.evaluation.metrics.lesions import neighbourhood, reference_lesions
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import detections
from rarevox.pipeline.evaluation.operating.parts import Values
from rarevox.transforms.bounding_box import bounding_box
from rarevox.transforms.decision import Decision

FLOOR = 0.01
"""The least threshold that is tried: voxels in which no structure has a score above it are not kept."""
COUNTS = ("detected", "true", "false", "predicted", "tp")


class Candidates:
    """Gather the voxels in which the likeliest structure has a score above ``FLOOR``, or the outermost of nested
    regions such a probability; a :class:`rarevox.pipeline.inference.watch.Watch`. No threshold of ``FLOOR`` or more
    labels any other.

    Args:
        classes: how many, with the background.
        nested: the classes are depths in nested regions.
    """

    def __init__(self, classes: int, *, nested: bool = False) -> None:
        self.classes, self.nested = classes, nested
        self.begin((0, 0, 0))

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins."""
        self.shape = tuple(int(n) for n in shape)
        self._places: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._logs: list[np.ndarray] = [np.zeros((0, self.classes), np.float32)]

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Add a block."""
        of_any = log_probabilities[1:]
        lead = (of_any.logsumexp(0) if self.nested else of_any.amax(0)) - log_probabilities[0]
        # Where another structure is as likely, the score is 1/2 and the lead over the background larger.
        found = lead > math.log(FLOOR / (1 - FLOOR))
        inner = found.nonzero().T.cpu().numpy()
        whole = tuple(axis + span.start for axis, span in zip(inner, where, strict=True))
        self._places.append(np.ravel_multi_index(whole, self.shape))
        self._logs.append(log_probabilities[:, found].T.float().cpu().numpy())

    def save(
        self, file: Path, name: str, reference: np.ndarray, spacing_mm: Sequence[float], subject: str = ""
    ) -> None:
        """Write the case, of a subject (by default of one of its own).

        Raises:
            ValueError: the reference is on another grid.
        """
        if reference.shape != self.shape:
            raise ValueError("the reference is on another grid")
        places, logs = np.concatenate(self._places), np.concatenate(self._logs)
        said: dict[str, Any] = {"name": name, "subject": subject or name, "spacing_mm": spacing_mm}
        np.savez_compressed(file, reference=reference, places=places, logs=logs, allow_pickle=False, **said)


@dataclass(frozen=True)
class StoredCase:
    """A case with its candidates: ``reference`` (X, Y, Z) labels, ``places`` (n,) flat indices, ``logs`` (n, C)."""

    name: str
    reference: np.ndarray
    spacing_mm: tuple[float, ...]
    places: np.ndarray
    logs: torch.Tensor
    subject: str = ""

    @classmethod
    def load(cls, file: Path) -> StoredCase:
        """Read what :meth:`Candidates.save` wrote."""
        with np.load(file) as stored:
            spacing = tuple(float(s) for s in stored["spacing_mm"])
            logs = torch.from_numpy(stored["logs"])
            names = str(stored["name"]), str(stored["subject"])
            return cls(names[0], stored["reference"], spacing, stored["places"], logs, names[1])

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def scores(self, decision: Decision, of: int) -> np.ndarray:
        """(X, Y, Z) scores of class ``of`` against the others as the decision weighs them, of a nested region within
        those around it; 0 where not kept."""
        dense = np.zeros(self.reference.shape, np.float32)
        dense.ravel()[self.places] = decision.sure_scores(self.logs.T, of).numpy()
        return dense

    def labels(self, decision: Decision, values: Sequence[int]) -> np.ndarray:
        """(X, Y, Z) label values that the thresholds of a decision give; confidences count for nothing here."""
        out = np.zeros(self.reference.shape, np.uint8 if max(values) < 256 else np.int32)
        out.ravel()[self.places] = np.asarray(values)[decision.classes(self.logs.T).numpy()]
        return out


@dataclass(frozen=True)
class CaseTable:
    """Counts of one structure in one case at every threshold and confidence.

    Attributes:
        name: of the case.
        counts: for each of ``COUNTS`` (thresholds, confidences): lesions detected, true, false; voxels predicted, and
            of them those in the reference.
        voxels: in the reference.
        lesions: in the reference, those that count.
        subject: whose case it is; empty where it is the only one of its subject.
        voxel_ml: volume of a voxel.
    """

    name: str
    counts: Mapping[str, np.ndarray]
    voxels: int
    lesions: int
    subject: str = ""
    voxel_ml: float = 0.001


def case_table(
    case: StoredCase,
    decision: Decision,
    of: int,
    value: Values,
    thresholds: Sequence[float],
    confidences: Sequence[float],
    options: MetricOptions,
) -> CaseTable:
    """The counts of one structure, the other classes weighed as the decision says.

    Args:
        case: as stored.
        decision: of the other structures.
        of: class index of the structure.
        value: its label value; of a region its label values.
        thresholds: each at least ``FLOOR``.
        confidences: of components; 0 removes none.
        options: how lesions are counted.
    """
    scores, reference = case.scores(decision, of), np.isin(case.reference, value)
    box = bounding_box((scores > 0) | reference)
    shape = len(thresholds), len(confidences)
    counts = {key: np.zeros(shape, np.int64) for key in COUNTS}
    if box is None:
        return CaseTable(case.name, counts, 0, 0, case.subject, case.voxel_ml)
    scores, reference = scores[box], reference[box]
    unseen = None if options.ignored_value is None else case.reference[box] == options.ignored_value
    lesions = reference_lesions(reference, neighbourhood(options.connectivity), options.lesion_dilation)
    wanted = 0
    for row, threshold in enumerate(thresholds):
        found = detections(scores, threshold, reference, case.voxel_ml, options, lesions, unseen=unseen)
        wanted = len(found.reference_peaks)
        for key, numbers in found.at(confidences).items():
            counts[key][row] = numbers
    voxels = int(np.count_nonzero(reference))
    return CaseTable(case.name, counts, voxels, wanted, case.subject, case.voxel_ml)
