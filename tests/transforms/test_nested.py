"""Nested regions: nested in every voxel whatever the network says, and the probabilities of their depths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rarevox.transforms.nested import (
    NestedDecision,
    RegionScores,
    at_depth,
    depth_log_probabilities,
    depths,
)

EPS32 = torch.finfo(torch.float32).eps
NAMES = ["whole", "core", "hot", "spot"]
some_logits = st.integers(1, 4).flatmap(lambda k: arrays(np.float32, (k, 5), elements=st.floats(-90, 90, width=32)))
some_thresholds = st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4)


def _decision(thresholds: list[float], regions: int) -> NestedDecision:
    points = {name: {"threshold": t} for name, t in zip(NAMES[:regions], thresholds, strict=False)}
    return NestedDecision(points, NAMES[:regions])


@given(some_logits)
def test_probabilities_of_the_depths_add_up_to_nested_regions(values: np.ndarray) -> None:
    """q ≥ 0, Σ q = 1, and Σ_{d ≥ k} q_d = min σ(z_1 … z_k), which falls with k."""
    logits = torch.from_numpy(values)
    q = depth_log_probabilities(logits).double().exp()
    regions = q.flip(0).cumsum(0).flip(0)
    # Each logarithm is a sum of three of at most 90, in float32.
    bound = 3 * 90 * 4 * EPS32
    assert torch.allclose(q.sum(0), torch.ones(5, dtype=torch.float64), rtol=0, atol=bound)
    assert torch.allclose(regions[1:], logits.double().sigmoid().cummin(0).values, rtol=bound, atol=bound)
    assert (regions.diff(dim=0) <= 0).all()


@given(some_logits, some_thresholds, st.sampled_from([0.5, 1.0, 3.0]))
def test_labels_are_nested_and_follow_the_thresholds(
    values: np.ndarray, thresholds: list[float], temperature: float
) -> None:
    """In region k exactly where it and all outer ones exceed their thresholds, by a loop over the definition."""
    logits, decision = torch.from_numpy(values), _decision(thresholds, len(values))
    label = decision.weighted_logits(logits, temperature).argmax(0)
    limits = (temperature * decision.logits).tolist()
    for voxel, column in enumerate(values.T):
        nested = np.minimum.accumulate(column)
        inside = [bool(z > limit) for z, limit in zip(nested, limits, strict=True)]
        assert int(label[voxel]) == (inside + [False]).index(False)


@given(some_logits)
def test_half_is_the_count_of_outer_logits_above_zero(values: np.ndarray) -> None:
    logits = torch.from_numpy(values)
    decision = NestedDecision({}, NAMES[: len(values)])
    assert torch.equal(decision.weighted_logits(logits, 2.0).argmax(0), depths(logits[None])[0, 0])
    assert bool(decision)


@given(some_logits, some_thresholds)
def test_probabilities_and_logits_give_the_same_labels(values: np.ndarray, thresholds: list[float]) -> None:
    logits, decision = torch.from_numpy(values), _decision(thresholds, len(values))
    by_logits = decision.weighted_logits(logits, 1.0).argmax(0)
    by_probabilities = decision.weighted(depth_log_probabilities(logits).exp()).argmax(0)
    regions = logits.sigmoid().cummin(0).values
    clear = (regions - torch.tensor(decision.thresholds)[:, None]).abs().amin(0) > 1e-3
    assert torch.equal(by_logits[clear], by_probabilities[clear])


@given(st.lists(some_thresholds, min_size=2, max_size=3), st.integers(0, 99))
def test_means_of_runs_are_nested_too(_: list[list[float]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    runs = [depth_log_probabilities(4 * torch.randn(3, 50, generator=generator)).exp() for _ in range(3)]
    mean = torch.stack(runs).mean(0)
    regions = mean.flip(0).cumsum(0).flip(0)
    assert (mean >= 0).all()
    assert (regions.diff(dim=0) <= 0).all()


def test_three_regions_by_hand() -> None:
    """P = (0.6, 0.3, 0.3): the third, 0.9 by itself, is held to the second."""
    p = torch.tensor([0.6, 0.3, 0.9], dtype=torch.float64)
    q = depth_log_probabilities(p.logit()).exp()
    assert q.tolist() == pytest.approx([0.4, 0.3, 0.0, 0.3], abs=1e-6)
    half, low = NestedDecision({}, NAMES[:3]), NestedDecision({"core": {"threshold": 0.2}}, NAMES[:3])
    assert int(half.weighted(q).argmax()) == 1  # the largest q is the background's
    assert int(low.weighted(q).argmax()) == 2  # hot: 0.3 is below 1/2
    assert low.leads(q.log(), 2).item() == pytest.approx(float(torch.tensor(0.3).logit()), abs=1e-5)


def test_extremes_stay_finite() -> None:
    for value in (1e4, -1e4, 0.0):
        logs = depth_log_probabilities(torch.full((3, 2), value))
        assert torch.isfinite(logs).all()
        assert logs.exp().sum(0).tolist() == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6))
def test_the_depth_is_where_the_margins_end(margins: list[float]) -> None:
    depth = next((number for number, m in enumerate(margins) if m <= 0), len(margins))
    assert int(at_depth(torch.tensor(margins)).argmax()) == depth


def test_confidences_and_unknown_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="core is a nested region, and these have thresholds, no confidence"):
        NestedDecision({"core": {"confidence": 0.5}}, NAMES)
    with pytest.raises(ValueError, match="no structure is called 'oedema'; there are whole, core, hot, spot"):
        NestedDecision({"oedema": {"threshold": 0.5}}, NAMES)


def test_scores_of_a_region_are_gathered_block_by_block() -> None:
    generator = torch.Generator().manual_seed(1)
    logs = depth_log_probabilities(3 * torch.randn(3, 4, 3, 2, generator=generator))
    decision = _decision([0.3, 0.5, 0.6], 3)
    found = RegionScores(decision)
    found.begin((4, 3, 2))
    for first in (0, 2):
        found.take(logs[:, first : first + 2], (slice(first, first + 2), slice(0, 3), slice(0, 2)))
    depth = decision.weighted(logs.exp()).argmax(0).numpy()
    for number in (1, 2, 3):
        places, scores = found.of(number)
        assert sorted(places) == np.flatnonzero(depth >= number).tolist()
        wanted = logs[number:].exp().sum(0).numpy().ravel()[places]
        assert scores == pytest.approx(wanted, abs=8 * EPS32)
