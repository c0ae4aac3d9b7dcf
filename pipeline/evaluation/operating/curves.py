"""Voxels counted by score and lesions by confidence while the cases of an evaluation are segmented.

A voxel's score is the probability of one structure against the strongest other class (of a nested region its own, where
the regions around it hold the voxel at the run's thresholds); see :mod:`rarevox.transforms.decision`. Lesions are the
components at the run's own threshold, with their peak as confidence; see
:mod:`rarevox.pipeline.evaluation.operating.detection`. What becomes of the counts:
:mod:`rarevox.pipeline.evaluation.operating.voxels` and :mod:`rarevox.pipeline.evaluation.operating.froc`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.evaluation.calibration.measure import read_reference
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.added import curve_of
from rarevox.pipeline.evaluation.operating.detection import Detections, detections
from rarevox.pipeline.evaluation.operating.voxels import voxel_curve
from rarevox.transforms.bounding_box import bounding_box
from rarevox.transforms.decision import Decision
from rarevox.transforms.label_scores import LabelScores
from rarevox.transforms.nested import NestedDecision, RegionScores
from rarevox.transforms.reader import ScanError

_TAIL = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005)
THRESHOLDS = (*_TAIL, *(n / 100 for n in range(1, 100)), *(1 - t for t in reversed(_TAIL)))
NOTHING = Detections(*(np.zeros(0, kind) for kind in (float, int, int, bool, bool, float)))


class CaseCurves:
    """Count the voxels of one case by score, and keep the scores of those that are labelled; a
    :class:`rarevox.pipeline.inference.watch.Watch`.

    Args:
        structures: name → label value, in the order of the classes 1, 2, …; of nested regions name → label values, the
            outermost first.
        decision: of the run.
        reference: (X, Y, Z) labels on the scan's grid.
        spacing_mm: voxel edge lengths.
        ignored: the label of voxels that nobody annotated, which are not counted; None for none.
        case: its name; without one it is counted under its number.

    Attributes:
        edges: of each structure, the thresholds, the run's own among them.
        counts: of each structure (2, edges + 1): voxels without and with it, by the number of edges below their score.
    """

    def __init__(
        self,
        structures: Mapping[str, int | Sequence[int]],
        decision: Decision,
        reference: np.ndarray,
        spacing_mm: Sequence[float],
        ignored: int | None = None,
        case: str = "",
    ) -> None:
        self.case = case
        self.values, self.decision = list(structures.values()), decision
        self.reference, self.ignored = reference, ignored
        self.voxel_ml = float(np.prod(spacing_mm)) / 1000.0
        self.edges = edges_of(decision)
        self.labelled = RegionScores(decision) if isinstance(decision, NestedDecision) else LabelScores(decision)
        self.begin(reference.shape)

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins: every voxel has score 0 until it is shown.

        Raises:
            ValueError: the reference is on another grid.
        """
        if tuple(shape) != self.reference.shape:
            raise ValueError(f"the reference has {self.reference.shape} voxels and the scan {tuple(shape)}")
        self.labelled.begin(shape)
        known = self.reference.size
        if self.ignored is not None:
            known -= int(np.count_nonzero(self.reference == self.ignored))
        self.counts = [np.zeros((2, len(edges) + 1), np.int64) for edges in self.edges]
        for counts, value in zip(self.counts, self.values, strict=True):
            has = int(np.count_nonzero(_of(self.reference, value)))
            counts[:, 0] = known - has, has

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Add a block: its voxels leave the bin of score 0 for their own."""
        reference = torch.from_numpy(np.ascontiguousarray(self.reference[where])).to(log_probabilities.device)
        for number, (edges, value) in enumerate(zip(self.edges, self.values, strict=True), start=1):
            leads = self.decision.sure_leads(log_probabilities, number)
            seen = leads > math.log(edges[0] / (1 - edges[0]))
            if self.ignored is not None:
                seen &= reference != self.ignored
            few, has = torch.sigmoid(leads[seen].double()), _of(reference[seen], value).long()
            bins = torch.bucketize(few, torch.tensor(edges, dtype=torch.double, device=few.device))
            found = torch.bincount(has * (len(edges) + 1) + bins, minlength=2 * (len(edges) + 1)).cpu().numpy()
            found = found.reshape(2, -1)
            self.counts[number - 1] += found
            self.counts[number - 1][:, 0] -= found.sum(1)
        self.labelled.take(log_probabilities, where)

    def lesions(self, options: MetricOptions) -> list[Detections]:
        """The lesions of each structure at the run's threshold."""
        found = []
        for number, value in enumerate(self.values, start=1):
            places, scores = self.labelled.of(number)
            dense = np.zeros(self.reference.shape, np.float32)
            dense.ravel()[places] = scores
            unseen = None if self.ignored is None else self.reference == self.ignored
            found.append(lesions_of(dense, _of(self.reference, value), self.voxel_ml, options, unseen))
        return found


def _of(labels: Any, value: int | Sequence[int]) -> Any:
    """Where labels, an array or a tensor, are the value or one of the values."""
    first, *others = [value] if isinstance(value, int) else value
    found = labels == first
    for other in others:
        found |= labels == other
    return found


def edges_of(decision: Decision) -> list[list[float]]:
    """The thresholds at which voxels of each structure are counted."""
    return [sorted({*THRESHOLDS, threshold}) for threshold in decision.thresholds]


def lesions_of(
    scores: np.ndarray,
    reference: np.ndarray,
    voxel_ml: float,
    options: MetricOptions,
    unseen: np.ndarray | None = None,
) -> Detections:
    """The lesions of labelled voxels, whose scores are above 0; within the box that holds anything."""
    box = bounding_box((scores > 0) | reference)
    if box is None:
        return NOTHING
    hidden = None if unseen is None else unseen[box]
    return detections(scores[box], 0.0, reference[box], voxel_ml, options, unseen=hidden)


class Curves:
    """Counts over the cases of an evaluation.

    Args:
        structures: name → label value, in the order of the classes 1, 2, …. Unions have no curve.
        decision: of the run.
        options: how lesions are counted, and the bootstrap.
        reference_key: entry of a case that holds the reference's file name.
        subjects: of cases that are not of their own, for the bootstrap.
    """

    def __init__(
        self,
        structures: Mapping[str, int | Sequence[int]],
        decision: Decision,
        options: MetricOptions,
        *,
        reference_key: str = "reference",
        subjects: Mapping[str, str] | None = None,
    ) -> None:
        self.subjects = dict(subjects or {})
        self.structures, self.decision, self.options = dict(structures), decision, options
        self.reference_key = reference_key
        self.edges = edges_of(decision)
        self.counts = [np.zeros((2, len(edges) + 1), np.int64) for edges in self.edges]
        self.cases: dict[str, list[Detections]] = {}

    def watch(self, item: Mapping[str, Any]) -> CaseCurves:
        """Who is to be shown the probabilities of a case.

        Raises:
            ScanError: the reference cannot be read.
        """
        labels, spacing_mm = read_reference(item[self.reference_key])
        name = str(item["case"])
        return CaseCurves(self.structures, self.decision, labels, spacing_mm, self.options.ignored_value, name)

    def add(self, case: CaseCurves) -> None:
        """Count a case that was segmented."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, case.counts, strict=True)]
        found = case.lesions(self.options) if self.options.lesions else [NOTHING] * len(self.structures)
        self.cases[case.case or f"case {len(self.cases)}"] = found

    def miss(self, item: Mapping[str, Any]) -> None:
        """Count a case that failed as one in which everything was missed; nothing where its reference is not known."""
        with suppress(ScanError, OSError, ValueError):
            self.add(self.watch(item))

    def lesions(self) -> dict[str, dict[str, Detections]]:
        """Structure → case → its lesions; empty where they are not counted."""
        if not self.options.lesions:
            return {}
        return {
            name: {case: found[number] for case, found in self.cases.items()}
            for number, name in enumerate(self.structures)
        }

    def result(self) -> dict[str, Any]:
        """The content of ``curves`` in ``metrics.json``."""
        structures, lesions = {}, self.lesions()
        for number, name in enumerate(self.structures):
            point = {
                "threshold": self.decision.thresholds[number],
                "confidence": self.decision.confidences.get(number + 1, 0.0),
            }
            voxels = voxel_curve(self.edges[number], self.counts[number])
            structures[name] = curve_of(point, voxels, lesions.get(name), self.options, self.subjects)
        return {"n_cases": len(self.cases), "structures": structures}
