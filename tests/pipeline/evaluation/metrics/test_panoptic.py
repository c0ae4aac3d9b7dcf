"""Panoptic quality by hand, against brute force over all pairs, and as panoptica has it."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.panoptic import panoptic_scores
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows


def _pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    field, noise = (ndimage.gaussian_filter(random.normal(size=(16, 14, 12)), 1.2) for _ in range(2))
    return field + 0.4 * noise > np.quantile(field, 0.85), field > np.quantile(field, 0.85)


def test_by_hand() -> None:
    """A row of components: IoU 1, IoU 2/4 (no pair: not above 1/2), a missed and a false one."""
    reference, prediction = np.zeros((20, 1, 1), bool), np.zeros((20, 1, 1), bool)
    reference[[0, 1]] = prediction[[0, 1]] = True
    reference[[4, 5, 6]], prediction[[5, 6, 7]] = True, True
    reference[10], prediction[14] = True, True
    found = panoptic_scores(prediction, reference)
    # One pair of three components on either side: 1 / (1 + 2/2 + 2/2).
    assert found == pytest.approx({"pq": 1 / 3, "rq": 1 / 3, "sq": 1.0})
    # From IoU 0.4 on the second is a pair too: (1 + 1/2) / (2 + 1/2 + 1/2).
    assert panoptic_scores(prediction, reference, iou=0.4) == pytest.approx({"pq": 0.5, "rq": 2 / 3, "sq": 0.75})


@given(st.integers(0, 10_000), st.sampled_from([6, 26]))
def test_against_all_pairs(seed: int, connectivity: int) -> None:
    prediction, reference = _pair(seed)
    near = ndimage.generate_binary_structure(3, {6: 1, 26: 3}[connectivity])
    (ours, p), (theirs, r) = ndimage.label(prediction, near), ndimage.label(reference, near)
    ratios = []
    for one, other in product(range(1, p + 1), range(1, r + 1)):
        a, b = ours == one, theirs == other
        ratio = (a & b).sum() / (a | b).sum()
        ratios += [ratio] if ratio > 0.5 else []
    tp, fp, fn = len(ratios), p - len(ratios), r - len(ratios)
    found = panoptic_scores(prediction, reference, connectivity=connectivity)
    assert found["rq"] == pytest.approx(tp / (tp + fp / 2 + fn / 2))
    assert found["pq"] == pytest.approx(sum(ratios) / (tp + fp / 2 + fn / 2))
    assert found["pq"] == pytest.approx(found["rq"] * found["sq"] if tp else 0.0, nan_ok=True)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.5]))
def test_both_sides_are_alike_and_each_has_one_partner(seed: int, iou: float) -> None:
    prediction, reference = _pair(seed)
    found, turned = (panoptic_scores(*pair, iou=iou) for pair in ((prediction, reference), (reference, prediction)))
    assert found["rq"] == pytest.approx(turned["rq"])
    assert 0 <= found["pq"] <= found["rq"] <= 1
    assert panoptic_scores(reference, reference, iou=iou) == pytest.approx({"pq": 1.0, "rq": 1.0, "sq": 1.0})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("connectivity", [6, 26])
def test_torchmetrics(seed: int, connectivity: int) -> None:
    """Its class of things is the mask, each instance a component; the background is stuff, a class of its own."""
    peer = pytest.importorskip("torchmetrics.functional.detection", reason="pip install torchmetrics")
    prediction, reference = _pair(seed)
    near = ndimage.generate_binary_structure(3, {6: 1, 26: 3}[connectivity])
    maps = []
    for mask in (prediction, reference):
        instances, _ = ndimage.label(mask, near)
        maps.append(torch.from_numpy(np.stack([mask, instances], -1).astype(np.int64))[None])
    options = {"things": {1}, "stuffs": {0}, "return_sq_and_rq": True, "return_per_class": True}
    pq, sq, rq = peer.panoptic_quality(*maps, **options).reshape(2, 3)[0].tolist()
    found = panoptic_scores(prediction, reference, connectivity=connectivity)
    # It adds up in float32 or better: fewer than a hundred pairs, each ratio and sum rounded.
    assert found == pytest.approx({"pq": pq, "sq": sq, "rq": rq}, rel=100 * torch.finfo(torch.float32).eps)
    assert 0 < pq < 1 and 0 < sq < 1 and 0 < rq < 1


def test_each_line_of_the_paper_by_hand() -> None:
    """Squares in a plane of 12 × 12: what split, merged, missed and false components count for.

    Reference A of 9 voxels, found with 6 of them: IoU 6/9. B of 4, touched by two components of 2 (IoU 1/5 each, no
    pair): one missed, two false. C and D of 4 each under one component of 10 (4/10 each, no pair): two
    missed, one false. So TP = 1, FP = 3, FN = 3, and Σ IoU = 2/3.
    """
    reference, prediction = np.zeros((12, 12, 1), bool), np.zeros((12, 12, 1), bool)
    reference[0:3, 0:3] = True  # A
    prediction[0:2, 0:3] = True
    reference[0:4, 6] = True  # B, a line
    prediction[0, 5:7] = prediction[3, 6:8] = True  # one voxel of B and one beside it, twice
    reference[6:8, 0:2] = reference[6:8, 3:5] = True  # C and D
    prediction[6:8, 0:5] = True
    found = panoptic_scores(prediction, reference)
    rq = 1 / (1 + 3 / 2 + 3 / 2)
    assert found == pytest.approx({"sq": 2 / 3, "rq": rq, "pq": rq * 2 / 3})


TOLD = {
    0: (0.05263157894736842, 0.07142857142857142, 0.7368421052631579),
    1: (0.19599040674514065, 0.27586206896551724, 0.7104652244511349),
    2: (0.1718712176228516, 0.2222222222222222, 0.7734204793028322),
}
"""PQ, RQ and SQ of :func:`_pair` as panoptica 2.1.7 told them on 27 November 2026, for machines that have it not."""


@pytest.mark.parametrize("seed", TOLD)
def test_what_panoptica_told(seed: int) -> None:
    found = panoptic_scores(*_pair(seed), connectivity=6)
    assert tuple(found[name] for name in ("pq", "rq", "sq")) == pytest.approx(TOLD[seed], rel=1e-6)


@pytest.mark.parametrize("seed", TOLD)
def test_panoptica(seed: int) -> None:
    """It pairs at an IoU of exactly 1/2 too (seed 0 has two such pairs); no ratio of so few voxels lies between."""
    peer = pytest.importorskip("panoptica", reason="pip install panoptica")
    prediction, reference = _pair(seed)
    evaluator = peer.Panoptica_Evaluator(
        expected_input=peer.InputType.SEMANTIC,
        instance_approximator=peer.ConnectedComponentsInstanceApproximator(cca_backend=peer.CCABackend.scipy),
        instance_matcher=peer.NaiveThresholdMatching(matching_threshold=0.5 + 1e-9),
    )
    told = evaluator.evaluate(prediction.astype(np.uint8), reference.astype(np.uint8))["ungrouped"]
    found = panoptic_scores(prediction, reference, connectivity=6)
    for name, before in zip(("pq", "rq", "sq"), TOLD[seed], strict=True):
        assert found[name] == pytest.approx(getattr(told, name), rel=1e-6)
        assert getattr(told, name) == pytest.approx(before, rel=1e-6)  # what stands above is of today's panoptica too


def test_rows_follow_the_conventions() -> None:
    options = MetricOptions(panoptic=True, distances=False, lesions=False)
    prediction, reference = _pair(1)
    empty = np.zeros_like(reference)
    row = case_rows("a", prediction, reference, (1, 1, 1), {"s": 1}, options=options)[0]
    assert row["pq"] == pytest.approx(panoptic_scores(prediction, reference)["pq"])
    missed = case_rows("a", empty, reference, (1, 1, 1), {"s": 1}, options=options)[0]
    assert (missed["pq"], missed["rq"]) == (0.0, 0.0)
    assert math.isnan(missed["sq"])
    both = case_rows("a", empty, empty, (1, 1, 1), {"s": 1}, options=options)[0]
    assert both["pq"] == 1.0
    failed = failed_rows("a", {"s": 1}, "none", options=options)[0]
    assert (failed["pq"], list(failed)) == (0.0, list(row))
    with pytest.raises(ValueError, match="panoptic_iou"):
        MetricOptions(panoptic_iou=1.0)
