"""Lesions with confidences: every confidence counts as the lesion scores of the mask that is left, by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.lesions import lesion_scores, neighbourhood
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import detections


def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(20, 18, 16)), 1.0)
    truth = field > np.quantile(field, 0.95)
    seen = field + 0.6 * ndimage.gaussian_filter(random.normal(size=field.shape), 1.0)
    return 1 / (1 + np.exp(-12 * (seen - np.quantile(seen, 0.93)))), truth


@pytest.mark.parametrize(
    "options",
    [
        MetricOptions(),
        MetricOptions(connectivity=6),
        MetricOptions(lesion_min_ml=0.004),
        MetricOptions(lesion_dilation=1, lesion_min_ml=0.002),
    ],
)
@pytest.mark.parametrize("annotated", [1.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_counts_at_every_confidence_are_the_lesion_scores_of_what_is_left(
    options: MetricOptions, seed: int, annotated: float
) -> None:
    """What nobody annotated is marked or left with the component that it belongs to, and counts for nothing."""
    scores, truth = _scene(seed)
    threshold = 0.4
    field = ndimage.gaussian_filter(np.random.default_rng(seed + 9).normal(size=truth.shape), 1.0)
    unseen = field > np.quantile(field, annotated) if annotated < 1 else None
    hidden = np.zeros_like(truth) if unseen is None else unseen
    truth = truth & ~hidden
    found = detections(scores, threshold, truth, 0.001, options, unseen=unseen)
    components, count = ndimage.label(scores > threshold, neighbourhood(26))  # by which labels are left out
    peaks = ndimage.maximum(scores, components, range(1, count + 1))
    assert count > 5
    levels = [0.0, *np.quantile(peaks, [0.2, 0.5, 0.9]), 1.1]
    told = found.at(levels)
    for index, level in enumerate(levels):
        left = np.isin(components, 1 + np.flatnonzero(peaks >= level)) & ~hidden
        wanted = lesion_scores(
            left,
            truth,
            (1, 1, 1),
            connectivity=options.connectivity,
            dilation=options.lesion_dilation,
            min_ml=options.lesion_min_ml,
        )
        assert told["detected"][index] == wanted["lesions_detected"]
        assert told["true"][index] == wanted["lesions_true"]
        assert told["true"][index] + told["false"][index] == wanted["lesions_predicted"]
        assert told["predicted"][index] == left.sum()
        assert told["tp"][index] == (left & truth).sum()
        assert len(found.reference_peaks) == wanted["lesions_reference"]


def test_nothing_predicted_and_nothing_there() -> None:
    empty = np.zeros((4, 4, 4))
    found = detections(empty, 0.5, empty > 0, 0.001, MetricOptions())
    assert {key: value.tolist() for key, value in found.at([0.0, 0.5]).items()} == {
        key: [0, 0] for key in ("detected", "true", "false", "predicted", "tp")
    }


def test_lesions_that_touch_by_a_corner_stay_together_whatever_they_are_counted_by() -> None:
    """As in predict: of two voxels the sure one keeps the other, which counts by itself with 6 neighbours."""
    scores = np.zeros((4, 4, 4))
    scores[1, 1, 1], scores[2, 2, 2] = 0.95, 0.6
    found = detections(scores, 0.5, scores > 0, 0.001, MetricOptions(connectivity=6))
    told = found.at([0.9, 0.96])
    assert told["true"].tolist() == [2, 0] and told["detected"].tolist() == [2, 0]
