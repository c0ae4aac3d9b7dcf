"""The predicted and the reference lesions of one case with their confidence, from which every confidence is counted.

A predicted lesion is a component of the voxels whose score is above a threshold; its confidence is the largest score in
the 26-connected component that it lies in, by which labels are kept or left out whatever the lesions are counted by
(:func:`rarevox.transforms.label_scores.without_unsure`). A reference lesion's confidence is the largest of the
predicted lesions that touch it; 0 where none does. At a confidence Q the predicted lesions of Q or more are left, and
the counts are those of :func:`rarevox.pipeline.evaluation.metrics.lesions.lesion_scores` on what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from rarevox.pipeline.evaluation.metrics.lesions import (
    components_of,
    matches,
    neighbourhood,
    reference_lesions,
    sizes_of,
)
from rarevox.pipeline.evaluation.metrics.options import MetricOptions


@dataclass(frozen=True)
class Detections:
    """The lesions of one case at one threshold.

    Attributes:
        peaks: (P,) confidence of each predicted lesion.
        sizes: (P,) its voxels.
        overlaps: (P,) those in the reference.
        true: (P,) whether it touches a reference lesion that counts.
        counted: (P,) whether it counts at all (not one that touches only lesions too small to count).
        reference_peaks: (R,) confidence of each reference lesion that counts.
    """

    peaks: np.ndarray
    sizes: np.ndarray
    overlaps: np.ndarray
    true: np.ndarray
    counted: np.ndarray
    reference_peaks: np.ndarray

    def at(self, confidences: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
        """What is left at each confidence: ``detected``, ``true``, ``false`` lesions, ``predicted`` and ``tp`` voxels.

        >>> ones = np.ones(2, int)
        >>> found = Detections(np.array([0.9, 0.6]), ones, ones, ones > 0, ones > 0, np.array([0.9, 0.0]))
        >>> found.at([0.0, 0.7])["true"].tolist(), found.at([0.0, 0.7])["detected"].tolist()
        ([2, 1], [1, 1])
        """
        least = np.maximum(np.asarray(confidences, np.float64), np.finfo(np.float64).tiny)
        order = np.argsort(self.peaks)
        first = np.searchsorted(self.peaks, least, "left", order)
        weights = {
            "true": self.true,
            "false": self.counted & ~self.true,
            "predicted": self.sizes,
            "tp": self.overlaps,
        }
        reached = np.searchsorted(np.sort(self.reference_peaks), least, "left")
        return {"detected": len(self.reference_peaks) - reached} | {
            key: _sums_from(values[order])[first] for key, values in weights.items()
        }

    @property
    def false_peaks(self) -> np.ndarray:
        """The confidences of the false lesions, those of 0, which none keeps, left out."""
        return self.peaks[self.counted & ~self.true & (self.peaks > 0)]


def joined(cases: Sequence[Detections]) -> Detections:
    """The lesions of all cases as if they were of one."""
    nothing = Detections(*(np.zeros(0, kind) for kind in (float, int, int, bool, bool, float)))
    return Detections(
        *(np.concatenate([getattr(case, one.name) for case in (nothing, *cases)]) for one in fields(Detections))
    )


def _sums_from(values: np.ndarray) -> np.ndarray:
    """The sums of the values from each place on: (n + 1,), the last of none."""
    return np.concatenate([values[::-1].cumsum(dtype=np.int64)[::-1], [0]])


def detections(
    scores: np.ndarray,
    threshold: float,
    reference: np.ndarray,
    voxel_ml: float,
    options: MetricOptions,
    lesions: np.ndarray | None = None,
    *,
    unseen: np.ndarray | None = None,
) -> Detections:
    """The lesions of one case.

    The confidence of a lesion is the highest score of the component that holds it, where prediction would take it away
    or leave it: of 26 neighbours, and with the voxels that nobody annotated, which count for nothing else.

    Args:
        scores: (X, Y, Z) scores of a structure.
        threshold: voxels above it are predicted.
        reference: (X, Y, Z) bool.
        voxel_ml: volume of a voxel.
        options: connectivity, dilation and the smallest lesion that counts.
        lesions: of :func:`rarevox.pipeline.evaluation.metrics.lesions.reference_lesions`, where they are known.
        unseen: (X, Y, Z) bool, the voxels that nobody annotated; None: there are none.
    """
    near, dilation = neighbourhood(options.connectivity), options.lesion_dilation
    if lesions is None:
        lesions = reference_lesions(reference, near, dilation)
    marked = scores > threshold
    predicted = components_of(marked if unseen is None else marked & ~unseen, near)
    sizes = sizes_of(predicted)
    found, ignored = matches(lesions, predicted, sizes, dilation, options.lesion_min_ml / voxel_ml)
    true = np.zeros(len(sizes), bool)
    for lesion in found:
        true[lesion.touching] = True
    inside = predicted > 0
    whole = predicted if near.all() and unseen is None else components_of(marked, np.ones_like(near))
    highest = np.zeros(int(whole.max(initial=0)) + 1)
    np.maximum.at(highest, whole[marked], scores[marked])
    peaks = np.zeros(len(sizes))
    peaks[predicted[inside]] = highest[whole[inside]]
    overlaps = np.bincount(predicted[reference].ravel(), minlength=len(sizes))
    confidence = [peaks[lesion.touching].max() if len(lesion.touching) else 0.0 for lesion in found]
    counted = ~(ignored & ~true)
    return Detections(peaks[1:], sizes[1:], overlaps[1:], true[1:], counted[1:], np.array(confidence, np.float64))
