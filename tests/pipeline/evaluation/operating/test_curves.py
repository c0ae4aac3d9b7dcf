"""Curves by hand on three small cases, and against scikit-learn and counts by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.evaluation.metrics.lesions import lesion_scores
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.curves import THRESHOLDS, CaseCurves, Curves
from rarevox.pipeline.evaluation.operating.froc import FALSE_LESIONS, froc
from rarevox.pipeline.evaluation.operating.voxels import voxel_curve
from rarevox.transforms.decision import Decision
from rarevox.transforms.nested import NestedDecision

OPTIONS = MetricOptions(resamples=50)


def _logs(p: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([1 - p, p])).log()


def _case(p: np.ndarray, reference: np.ndarray, decision: Decision, blocks: int = 1) -> CaseCurves:
    case = CaseCurves({"lesion": 1}, decision, reference.astype(np.uint8), (1, 1, 1))
    for part in np.array_split(np.arange(len(p)), blocks):
        span = slice(int(part[0]), int(part[-1]) + 1)
        case.take(_logs(p[span]), (span, slice(0, p.shape[1]), slice(0, p.shape[2])))
    return case


def _row(values: list[float]) -> np.ndarray:
    return np.array(values).reshape(-1, 1, 1)


def test_froc_of_three_cases_by_hand() -> None:
    """Lesions are runs of voxels along a line.

    1: two lesions, one found with peak 0.95, one with 0.6; a false one with 0.7.
    2: one lesion, missed; a false one with 0.55.
    3: no lesion; two false ones, 0.9 and 0.7.
    """
    decision = Decision({}, ["lesion"])
    curves = Curves({"lesion": 1}, decision, OPTIONS)
    scenes = [
        ([0.8, 0.95, 0.0, 0.6, 0.0, 0.7, 0.1], [1, 1, 0, 1, 0, 0, 0]),
        ([0.1, 0.0, 0.55, 0.0, 0.0, 0.0, 0.0], [1, 0, 0, 0, 0, 0, 0]),
        ([0.9, 0.6, 0.0, 0.7, 0.0, 0.0, 0.0], [0, 0, 0, 0, 0, 0, 0]),
    ]
    for p, reference in scenes:
        curves.add(_case(_row(p), _row([float(v) for v in reference]), decision))
    found = curves.result()["structures"]["lesion"]["lesions"]
    # Nothing cut, then from 0.55, 0.6, 0.7, 0.9, 0.95 on.
    assert found["confidence"] == pytest.approx([0, 0.55, 0.6, 0.7, 0.9, 0.95], abs=1e-6)
    assert found["detected"] == [2, 2, 2, 1, 1, 1]
    assert found["true"] == [2, 2, 2, 1, 1, 1]
    assert found["false"] == [4, 4, 3, 3, 1, 0]
    assert found["reference"] == 3
    assert found["sensitivity"] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert found["false_per_scan"] == pytest.approx([4 / 3, 4 / 3, 1, 1, 1 / 3, 0])
    # Within 1/8, 1/4 and 1/2 a third, from 1 on two thirds.
    assert list(found["sensitivity_at"].values()) == pytest.approx([1 / 3] * 3 + [2 / 3] * 4)
    assert found["froc_score"] == pytest.approx((3 / 3 + 4 * 2 / 3) / len(FALSE_LESIONS))


def test_voxels_of_a_case_by_hand() -> None:
    decision = Decision({"lesion": {"threshold": 0.275}}, ["lesion"])
    case = _case(_row([0.95, 0.3, 0.28, 0.2, 0.0]), _row([1, 0, 1, 1, 0]), decision)
    found = voxel_curve(case.edges[0], case.counts[0])
    at = {t: (p, r) for t, p, r in zip(found["threshold"], found["precision"], found["recall"], strict=True)}
    assert at[0.275] == pytest.approx((2 / 3, 2 / 3))  # the run's own threshold is among them
    assert at[0.5] == pytest.approx((1.0, 1 / 3))
    assert at[0.1] == pytest.approx((3 / 4, 1.0))
    assert math.isnan(at[0.99][0])
    # 1/3 · 1 + 1/3 · 2/3 + 1/3 · 3/4
    assert found["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_voxel_curves_are_those_of_scikit_learn(seed: int, blocks: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    reference = random.random((6, 4, 3)) < 0.3
    reference.ravel()[0] = True
    p = random.beta(0.4, 0.8, reference.shape).clip(1e-9, 1 - 1e-9)
    case = _case(p, reference, Decision({}, ["lesion"]), blocks)
    found = voxel_curve(case.edges[0], case.counts[0])
    # float32 scores may fall on the other side of an edge only within its rounding.
    lead = torch.from_numpy(p).log() - torch.from_numpy(1 - p).log()
    s = torch.sigmoid(lead.float().double()).numpy()
    near = np.abs(s[..., None] - np.array(THRESHOLDS)).min(-1)
    if (near < 1e-5).any():
        return
    floor = np.searchsorted(THRESHOLDS, p.ravel())
    wanted = metrics.average_precision_score(reference.ravel(), floor)
    assert found["average_precision"] == pytest.approx(wanted, rel=1e-12)
    for index, t in enumerate(THRESHOLDS):
        assert found["predicted"][index] == (p > t).sum()
        assert found["true"][index] == ((p > t) & reference).sum()


@given(st.integers(0, 10_000))
def test_froc_is_the_lesion_scores_of_what_every_confidence_leaves(seed: int) -> None:
    random = np.random.default_rng(seed)
    decision = Decision({"lesion": {"threshold": 0.4}}, ["lesion"])
    curves, scenes = Curves({"lesion": 1}, decision, OPTIONS), []
    for _ in range(3):
        p, reference = random.random((14, 1, 2)).clip(1e-6, 1 - 1e-6), random.random((14, 1, 2)) < 0.3
        scenes.append((p, reference))
        curves.add(_case(p, reference, decision, 2))
    found = curves.result()["structures"]["lesion"]["lesions"]
    for index, level in enumerate(found["confidence"]):
        counts = [_counts(p, reference, 0.4, level) for p, reference in scenes]
        assert found["detected"][index] == sum(one[0] for one in counts)
        assert found["false"][index] == sum(one[1] for one in counts)


def _counts(p: np.ndarray, reference: np.ndarray, threshold: float, level: float) -> tuple[int, int]:
    from scipy import ndimage

    components, count = ndimage.label(p > threshold, np.ones((3, 3, 3)))
    # The level is a score in float32 of one of the components.
    keep = [n for n in range(1, count + 1) if p[components == n].max() >= level - 1e-6]
    scores = lesion_scores(np.isin(components, keep), reference, (1, 1, 1))
    return int(scores["lesions_detected"]), int(scores["lesions_predicted"] - scores["lesions_true"])


def test_what_nobody_annotated_counts_for_nothing() -> None:
    decision = Decision({}, ["lesion"])
    p, reference = _row([0.9, 0.9, 0.9]), np.array([1, 9, 0], np.uint8).reshape(3, 1, 1)
    case = CaseCurves({"lesion": 1}, decision, reference, (1, 1, 1), ignored=9)
    case.take(_logs(p), (slice(0, 3), slice(0, 1), slice(0, 1)))
    found = voxel_curve(case.edges[0], case.counts[0])
    assert found["voxels"] == 2
    assert found["predicted"][0] == 2
    lesions = case.lesions(MetricOptions(ignored_value=9))[0]
    assert len(lesions.peaks) == 2  # the voxel between them is no lesion


def test_a_case_that_was_never_shown_counts_as_missed() -> None:
    decision = Decision({}, ["lesion"])
    curves = Curves({"lesion": 1}, decision, OPTIONS)
    curves.add(CaseCurves({"lesion": 1}, decision, np.ones((2, 2, 2), np.uint8), (1, 1, 1)))
    found = curves.result()["structures"]["lesion"]
    assert found["voxels"]["recall"] == [0.0] * len(THRESHOLDS)
    assert found["lesions"]["sensitivity"] == [0.0]
    assert found["lesions"]["froc_score"] == 0.0


def test_without_any_lesion_nothing_is_defined() -> None:
    found = froc([], 0.0, OPTIONS)
    assert math.isnan(found["froc_score"])
    assert found["false_per_scan"] == [0.0]


def test_a_reference_on_another_grid_is_refused() -> None:
    case = CaseCurves({"lesion": 1}, Decision({}, ["lesion"]), np.zeros((2, 2, 2), np.uint8), (1, 1, 1))
    with pytest.raises(ValueError, match="voxels and the scan"):
        case.begin((3, 2, 2))


def test_curves_of_nested_regions_by_hand() -> None:
    """Five voxels of depths 2 1 0 0 0 in two regions; whole and core each have a score of their own, P."""
    whole, core = np.array([0.9, 0.8, 0.6, 0.1, 0.0]), np.array([0.7, 0.4, 0.2, 0.0, 0.0])
    q = np.stack([1 - whole, whole - core, core])
    decision = NestedDecision({}, ["whole", "core"])
    reference = np.array([250, 7, 0, 0, 0], np.uint8).reshape(5, 1, 1)
    regions = {"whole": [7, 250], "core": [250]}
    case = CaseCurves(regions, decision, reference, (10, 10, 10))
    case.take(torch.from_numpy(q).log().reshape(3, 5, 1, 1), (slice(0, 5), slice(0, 1), slice(0, 1)))
    curves = Curves(regions, decision, OPTIONS)
    curves.add(case)
    found = curves.result()["structures"]
    for name, tp, fp, fn in (("whole", 2, 1, 0), ("core", 1, 0, 0)):
        voxels = found[name]["voxels"]
        at = voxels["threshold"].index(0.5)
        assert voxels["precision"][at] == pytest.approx(tp / (tp + fp))
        assert voxels["recall"][at] == pytest.approx(tp / (tp + fn))
    assert found["whole"]["lesions"]["confidence"][-1] == pytest.approx(0.9)
    assert found["core"]["lesions"]["confidence"][-1] == pytest.approx(0.7)


def test_curves_of_nested_regions_have_the_labels_at_their_own_thresholds() -> None:
    """The fourth voxel is above the core's threshold and not within the whole: it is background, and so it counts."""
    whole, core = np.array([0.9, 0.8, 0.8, 0.5]), np.array([0.6, 0.4, 0.2, 0.4])
    q = torch.from_numpy(np.stack([1 - whole, whole - core, core]))
    decision = NestedDecision({"whole": {"threshold": 0.7}, "core": {"threshold": 0.3}}, ["whole", "core"])
    reference = np.array([250, 7, 0, 0], np.uint8).reshape(4, 1, 1)
    case = CaseCurves({"whole": [7, 250], "core": [250]}, decision, reference, (10, 10, 10))
    case.take(q.log().reshape(3, 4, 1, 1), (slice(0, 4), slice(0, 1), slice(0, 1)))
    curves = Curves({"whole": [7, 250], "core": [250]}, decision, OPTIONS)
    curves.add(case)
    depths = decision.classes(q.log())
    assert depths.tolist() == [2, 2, 1, 0]
    for number, (name, threshold) in enumerate((("whole", 0.7), ("core", 0.3)), start=1):
        voxels = curves.result()["structures"][name]["voxels"]
        at = voxels["threshold"].index(threshold)
        held = (depths >= number).numpy()
        assert voxels["predicted"][at] == held.sum()
        assert voxels["true"][at] == (held & (np.array([2, 1, 0, 0]) >= number)).sum()
