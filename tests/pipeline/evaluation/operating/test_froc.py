"""FROC on every peak: against counting lesion by lesion, however many there are; what is drawn keeps the curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.evaluation.metrics.aggregate import bootstrap_draws
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.detection import Detections
from rarevox.pipeline.evaluation.operating.froc import FALSE_LESIONS, FINENESS, MOST_POINTS, corners, froc

OPTIONS = MetricOptions(resamples=20)
# A score is a mean of seven shares, each rounded once, and an interval lies between two of them: some twenty roundings.
ROUNDED = 32 * np.finfo(float).eps


def scene(seed: int, predicted: int, peaks: int, cases: int = 4) -> list[Detections]:
    """Cases of 0 to ``predicted`` lesions with one of so many peaks, so that there are ties; some that do not count."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(cases):
        n = int(random.integers(0, predicted + 1))
        peak = random.integers(1, peaks + 1, n) / (peaks + 1)
        true = random.random(n) < 0.4
        missed = np.zeros(int(random.integers(0, 3)))
        reached = random.choice(peak[true], int(random.integers(0, true.sum() + 1))) if true.any() else missed
        ones = np.ones(n, int)
        found.append(
            Detections(peak, ones, ones, true, true | (random.random(n) < 0.9), np.concatenate([reached, missed]))
        )
    return found


def brute(cases: list[Detections], confidence: float, drawn: np.ndarray) -> tuple[dict[float, tuple[int, int]], float]:
    """Detected and false lesions at every confidence, and the score, each case counted as often as it was drawn."""
    levels = {0.0, confidence} | {float(peak) for case in cases for peak in case.peaks}
    reference = sum(int(times) * len(case.reference_peaks) for case, times in zip(cases, drawn, strict=True))
    counts = {}
    for level in levels:
        detected = false = 0
        for case, times in zip(cases, drawn, strict=True):
            detected += int(times) * int(((case.reference_peaks >= level) & (case.reference_peaks > 0)).sum())
            false += int(times) * int(((case.peaks >= level) & case.counted & ~case.true).sum())
        counts[level] = detected, false
    best = [max((d for d, f in counts.values() if f / drawn.sum() <= most), default=0) for most in FALSE_LESIONS]
    return counts, sum(best) / reference / len(best) if reference else math.nan


@given(
    st.integers(0, 100_000),
    st.sampled_from([3, 12]),
    st.sampled_from([0.0, 0.37, 0.995]),
    st.sampled_from([None, "aaba"]),
)
def test_every_figure_is_that_of_counting_lesion_by_lesion(
    seed: int, peaks: int, confidence: float, subjects: str | None
) -> None:
    cases = scene(seed, 30, peaks)
    found = froc(cases, confidence, OPTIONS, subjects)
    counts, score = brute(cases, confidence, np.ones(len(cases)))
    assert found["confidence"] == sorted(counts)
    assert list(zip(found["detected"], found["false"], strict=True)) == [counts[level] for level in sorted(counts)]
    assert found["froc_score"] == pytest.approx(score, abs=ROUNDED, nan_ok=True)
    draws = np.concatenate(list(bootstrap_draws(len(cases), OPTIONS, subjects)))
    scores = [brute(cases, confidence, drawn)[1] for drawn in draws]
    known = [one for one in scores if math.isfinite(one)]
    wanted = np.percentile(known, [2.5, 97.5]) if found["reference"] else [math.nan, math.nan]
    assert found["froc_score_ci95"] == pytest.approx(list(wanted), abs=ROUNDED, nan_ok=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_more_peaks_than_are_written_down_change_no_figure(seed: int) -> None:
    cases = scene(seed, 500, 10**6, cases=5)
    found = froc(cases, 0.5, MetricOptions(resamples=2))
    counts, score = brute(cases, 0.5, np.ones(len(cases)))
    assert found["points"] == len(counts) > MOST_POINTS
    assert found["froc_score"] == pytest.approx(score, abs=ROUNDED)
    for most in FALSE_LESIONS:
        best = max((d for d, f in counts.values() if f / len(cases) <= most), default=0)
        assert found["sensitivity_at"][f"{most:g}"] == best / found["reference"]
    for level, detected, false in zip(found["confidence"], found["detected"], found["false"], strict=True):
        assert counts[level] == (detected, false)
    assert 0.5 in found["confidence"]


def test_four_thousand_predictions_of_which_the_five_true_ones_rank_highest() -> None:
    """All are found before the first false one: 1 at every rate, though of 4000 peaks one in ten would hold none."""
    peaks, ones = np.linspace(0.999, 0.001, 4000), np.ones(4000, int)
    true = np.arange(4000) < 5
    case = Detections(peaks, ones, ones, true, ones > 0, peaks[:5])
    found = froc([case], 0.0, OPTIONS)
    assert set(found["sensitivity_at"].values()) == {1.0}
    assert found["froc_score"] == 1.0
    # From all kept along the false ones to the highest five, then down these: three corners.
    assert found["confidence"] == [0.0, *(peaks[k] for k in (4, 0))]


def test_a_hundred_thousand_peaks() -> None:
    """Points times peaks would be ten thousand million comparisons; sorted, they are a few million steps."""
    cases = scene(3, 50_000, 10**9)
    assert sum(len(case.peaks) for case in cases) > 100_000
    found = froc(cases, 0.5, MetricOptions())
    assert found["points"] > 100_000
    assert found["froc_score_ci95"][0] <= found["froc_score_ci95"][1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_point_lies_farther_from_the_drawn_line_than_a_part_of_an_axis(seed: int) -> None:
    cases = scene(seed, 2000, 10**9)
    found = froc(cases, 0.0, MetricOptions(resamples=2))
    counts, _ = brute(cases, 0.0, np.ones(len(cases)))
    assert len(found["confidence"]) < found["points"] / 5

    def place(detected: int, false: int) -> tuple[float, float]:
        return math.log2(max(8 * false / len(cases), 1)) / 6, detected / found["reference"]

    line = [place(d, f) for d, f in zip(found["detected"], found["false"], strict=True)][::-1]  # both rise
    x, y = np.array(line).T
    for detected, false in counts.values():
        at, share = place(detected, false)
        # The line rises: at this place, or a part of an axis to its sides, it passes this share.
        near = np.interp([at - 1 / FINENESS, at + 1 / FINENESS], x, y)
        low = near[0] if at - 1 / FINENESS > x[0] else 0.0
        assert low - 1 / FINENESS <= share + ROUNDED and share <= near[1] + 1 / FINENESS + ROUNDED


@given(st.integers(0, 100_000))
def test_corners_leave_the_line_as_it_was(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.integers(0, 2, (2, 40))
    across, along = steps.cumsum(1)
    kept = corners(across, along)
    line = list(zip(across[kept], along[kept], strict=True))
    for point in zip(across, along, strict=True):
        # On a stretch between two corners that goes along one axis, or a corner itself.
        ends = zip(line, line[1:], strict=False)
        on = any(a[k] == b[k] == point[k] and a[1 - k] <= point[1 - k] <= b[1 - k] for a, b in ends for k in (0, 1))
        assert on or point in line
    assert line[0] == (across[0], along[0]) and line[-1] == (across[-1], along[-1])
