"""The fitted temperature: known by construction, against another optimiser, and a fair draw of voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import fit
from rarevox.pipeline.evaluation.calibration.temperature import (
    Sample,
    VoxelSample,
    fit_temperature,
    join,
    negative_log_likelihood,
    sample_calibration,
)
from rarevox.pipeline.inference.native_watch import CERTAIN
from rarevox.transforms.nested import depth_log_probabilities


def _sample(temperature: float = 1.0, n: int = 40_000, seed: int = 0) -> Sample:
    """Classes drawn with softmax(z); the network says softmax(z · temperature), so T = ``temperature`` is right."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 3, generator=random, dtype=torch.float64)
    classes = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    logs = torch.log_softmax(logits * temperature, 1)
    return Sample(logs.numpy(), classes.numpy(), np.ones(n))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_the_data_was_made_with_is_found(temperature: float) -> None:
    assert fit_temperature(_sample(temperature)) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_agrees_with_torchs_lbfgs() -> None:
    sample = _sample(1.7, n=3000)
    logs, classes = torch.from_numpy(sample.logs), torch.from_numpy(sample.classes)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logs / log_t.exp(), classes)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(sample) == pytest.approx(float(log_t.exp()), rel=1e-4)
    with torch.no_grad():
        expected = float(torch.nn.functional.cross_entropy(logs / 2.5, classes))
    assert negative_log_likelihood(sample, 2.5) == pytest.approx(expected)


def test_logits_times_a_factor_give_the_temperature_times_that_factor() -> None:
    sample = _sample(1.2, n=5000)
    louder = Sample(4 * sample.logs, sample.classes, sample.weights)
    assert fit_temperature(louder) == pytest.approx(4 * fit_temperature(sample), rel=1e-3)


def test_a_voxel_of_weight_two_counts_like_two() -> None:
    sample = _sample(1.5, n=500)
    weights = np.where(np.arange(500) < 100, 2.0, 1.0)
    again = np.r_[0:500, 0:100]
    weighted = Sample(sample.logs, sample.classes, weights)
    doubled = Sample(sample.logs[again], sample.classes[again], np.ones(600))
    assert fit_temperature(weighted) == pytest.approx(fit_temperature(doubled), rel=1e-4)
    assert sample_calibration(weighted, [[1]], 1.0)[0] == pytest.approx(sample_calibration(doubled, [[1]], 1.0)[0])


def test_the_errors_of_over_confident_probabilities_fall() -> None:
    result = fit(_sample(3.0), {"a": 4, "b": 2, "both": (2, 4)}, [0, 4, 2])
    assert result["nll"]["after"] < result["nll"]["before"]
    for name in ("a", "b", "both"):
        figures = result["structures"][name]
        assert figures["after"]["ece"] < 0.02 < 0.08 < figures["before"]["ece"]
        assert figures["after"]["brier"] < figures["before"]["brier"]


def test_what_no_temperature_can_mend_is_refused() -> None:
    perfect = Sample(np.log(np.full((50, 2), [0.9, 0.1])), np.zeros(50, int), np.ones(50))
    with pytest.raises(RequestError, match="nothing was changed"):
        fit(perfect, {"a": 1}, [0, 1])


def _case(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((30, 12, 10), np.uint8)
    labels[3:6, 4:7, 4:7] = 1
    logits = rng.normal(0, 1, (2, *labels.shape))
    logits[0] += 4
    return torch.log_softmax(torch.from_numpy(logits), 0).float(), labels


def _drawn(voxels: int, step: int = 7) -> VoxelSample:
    logs, labels = _case()
    watch = VoxelSample([0, 1], labels, (2.0, 2.0, 2.0), voxels=voxels)
    watch.begin(labels.shape)
    for begin in range(0, 30, step):
        where = (slice(begin, min(begin + step, 30)), slice(0, 12), slice(0, 10))
        watch.take(logs[(slice(None), *where)], where)
    return watch


def test_the_whole_region_is_drawn_where_there_is_room() -> None:
    logs, labels = _case()
    region = logs[1].exp().numpy() >= 1 / 15
    region[0:11, 0:12, 0:10] = True  # 10 mm are 5 voxels of 2 mm around 3:6, 4:7, 4:7, cut at the faces
    sample = _drawn(10**6).sample()
    assert len(sample.classes) == region.sum() < labels.size
    assert (sample.weights == 1).all()
    assert (sample.classes == 1).sum() == 27
    expected = np.sort(logs[1].numpy()[region])
    np.testing.assert_allclose(np.sort(sample.logs[:, 1]), expected)


def test_a_smaller_draw_is_a_fair_one() -> None:
    whole, part = _drawn(10**6).sample(), _drawn(400).sample()
    assert len(part.classes) == 400
    assert part.weights.sum() == pytest.approx(len(whole.classes))
    known = {tuple(row) for row in whole.logs}
    assert all(tuple(row) in known for row in part.logs)
    assert len({tuple(row) for row in part.logs}) == 400  # without replacement
    # The share of the first eleven planes' voxels in the draw: within four standard deviations of that in the region.
    planes = _case()[0][1].numpy()[:11].ravel()
    share = np.isin(whole.logs[:, 1], planes).mean()
    assert abs(np.isin(part.logs[:, 1], planes).mean() - share) < 4 * np.sqrt(share * (1 - share) / 400)


def test_a_pass_begun_anew_draws_anew() -> None:
    logs, labels = _case()
    watch = _drawn(400, step=30)
    first = watch.sample()
    watch.begin(labels.shape)
    watch.take(logs, tuple(slice(0, n) for n in labels.shape))
    assert np.array_equal(watch.sample().logs, first.logs)
    with pytest.raises(ValueError, match="the reference has"):
        watch.begin((1, 1, 1))


def test_samples_of_cases_are_joined_and_empty_ones_left_out() -> None:
    nothing = VoxelSample([0, 1], np.zeros((2, 2, 2), np.uint8), (1, 1, 1)).sample()
    one = _drawn(100).sample()
    both = join([nothing, one, one])
    assert both.logs.shape == (200, 2)


def test_voxels_that_are_background_by_rule_are_not_drawn() -> None:
    """What was cropped away is background at any temperature; a label there would decide alone."""
    logs, labels = _case()
    where = tuple(slice(0, n) for n in labels.shape)
    whole = VoxelSample([0, 1], labels, (2.0, 2.0, 2.0), voxels=10**6)
    whole.take(logs, where)
    logs[1, 3], logs[0, 3] = CERTAIN, 0.0  # a plane through the structure
    cropped = VoxelSample([0, 1], labels, (2.0, 2.0, 2.0), voxels=10**6)
    cropped.take(logs, where)
    assert len(whole.sample().classes) - len(cropped.sample().classes) == 12 * 10
    assert cropped.sample().logs.min() > -100


def test_voxels_that_nobody_annotated_are_not_drawn() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2, 2, 2], labels[:, :, 3:] = 1, 5
    logs = torch.full((2, 6, 6, 6), 0.5).log()
    sample = VoxelSample((0, 1), labels, (1.0, 1.0, 1.0), ignored=5)
    sample.take(logs, (slice(0, 6),) * 3)
    drawn = sample.sample()
    assert (len(drawn.classes), drawn.classes.sum()) == (6 * 6 * 3, 1)


def _nested_sample(temperature: float, n: int = 60_000) -> Sample:
    """Depths drawn from nested regions σ(z_1) ≥ σ(z_2); the network says σ(z · temperature)."""
    random = torch.Generator().manual_seed(2)
    logits = (2 * torch.randn(2, n, generator=random, dtype=torch.float64)).cummin(0).values
    classes = torch.multinomial(depth_log_probabilities(logits).exp().T, 1, generator=random)[:, 0]
    logs = depth_log_probabilities(logits * temperature).T
    return Sample(logs.numpy(), classes.numpy(), np.ones(n), nested=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_nested_regions_is_found(temperature: float) -> None:
    sample = join([_nested_sample(temperature)])
    found = fit_temperature(sample)
    assert found == pytest.approx(temperature, rel=0.03)
    # At it the probability of depth 1 and more is the frequency of it.
    (whole,) = sample_calibration(sample, [[1, 2]], found)
    assert whole["ece"] < 0.01


def test_the_likelihood_of_nested_regions_by_hand() -> None:
    """P = (0.8, 0.4): depth 1 costs −ln 0.8 − ln 0.6; the depth's own probability 0.4 is not asked."""
    sample = Sample(np.log([[0.2, 0.4, 0.4]]), np.array([1]), np.ones(1), nested=True)
    assert negative_log_likelihood(sample, 1.0) == pytest.approx(-np.log(0.8) - np.log(0.6))
    assert sample.region_logits() == pytest.approx(np.log([[4.0, 2 / 3]]))
