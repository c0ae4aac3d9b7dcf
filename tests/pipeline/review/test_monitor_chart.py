"""The control chart: the stated rate of false alarms, the delay of true ones, what an alarm says."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist, pstdev

import numpy as np
import pytest

from rarevox.pipeline.review.monitor_chart import CAP, ChartOptions, control_chart, limit_for, score

Draw = Callable[[np.random.Generator, int], np.ndarray]


def _skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.beta(8, 2, n)  # mean 0.8, standard deviation 0.12


def _narrow(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.beta(45, 5, n)  # mean 0.9, standard deviation 0.042


def _with_failures(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.1, 0.0, np.round(rng.beta(8, 2, n), 2))  # ties throughout


def _first_alarms(draw: Draw, runs: int, cases: int, options: ChartOptions, drop: float = 0.0) -> np.ndarray:
    """Cases from the end of the baseline to the first alarm; infinite where none is raised."""
    rng, first = np.random.default_rng(7), []
    for _ in range(runs):
        values = draw(rng, options.baseline + cases)
        values[options.baseline :] = np.maximum(values[options.baseline :] - drop, 0.0)
        alarms = control_chart(values.tolist(), options).alarms
        first.append(alarms[0].raised - options.baseline + 1 if alarms else math.inf)
    return np.array(first)


@pytest.mark.parametrize(("draw", "tied"), [(_skewed, False), (_narrow, False), (_with_failures, True)])
def test_false_alarms_come_no_more_often_than_stated(draw: Draw, tied: bool) -> None:
    # One in 500 cases on average: within 200 cases, P ≤ 1 − exp(−200/500) = 0.33. Three standard errors are allowed.
    runs, cases, asked = 600, 200, 500.0
    false = float(np.mean(_first_alarms(draw, runs, cases, ChartOptions(baseline=20, run_length=asked)) <= cases))
    stated = 1 - math.exp(-cases / asked)
    error = math.sqrt(stated * (1 - stated) / runs)
    assert false <= stated + 3 * error
    if not tied:  # ties make it rarer; without them the chart is as quick to alarm as it says, not an idle one
        assert false >= stated - 4 * error


@pytest.mark.parametrize(
    ("draw", "drop", "share", "delay"), [(_skewed, 0.1, 0.8, 40), (_narrow, 0.05, 0.95, 20), (_narrow, 0.1, 0.99, 10)]
)
def test_a_sustained_drop_is_noticed(draw: Draw, drop: float, share: float, delay: int) -> None:
    first = _first_alarms(draw, 200, 100, ChartOptions(), drop)
    assert np.mean(first <= 100) >= share
    assert np.median(first) <= delay


def test_limit_gives_the_run_length_by_a_markov_chain() -> None:
    # Brook and Evans 1972: S on a grid of m cells over [0, h], transitions by the normal distribution.
    normal, m = NormalDist(), 250
    for allowance, run_length in ((0.25, 1000.0), (0.5, 370.0), (0.25, 6000.0)):
        h = limit_for(run_length, allowance)
        width = h / m
        centres = (np.arange(m) + 0.5) * width
        edges = np.arange(1, m + 1) * width
        below = np.array([[normal.cdf(edge - centre + allowance) for edge in edges] for centre in centres])
        moves = np.diff(below, axis=1, prepend=0.0)  # the first cell also takes everything below 0
        expected = np.linalg.solve(np.eye(m) - moves, np.ones(m))[0]
        assert expected == pytest.approx(run_length, rel=0.05)


def test_no_limit_below_0() -> None:
    assert limit_for(2.0, 0.5) == 0.0


def test_sums_by_hand() -> None:
    # Ten baseline cases from 0.80 to 0.89. A case below all has rank 1 of 11, the next below all again rank 1 of 12, a
    # case above all rank 13 of 13.
    def z(rank: int, n: int) -> float:
        scores = [NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]
        return scores[rank - 1] / pstdev(scores)

    baseline = [0.80 + 0.01 * i for i in range(10)]
    sums = control_chart([*baseline, 0.5, 0.4, 0.95], ChartOptions(baseline=10)).sums
    assert all(math.isnan(s) for s in sums[:10])
    first = -z(1, 11) - 0.25
    second = first - z(1, 12) - 0.25
    assert sums[10:] == pytest.approx((first, second, max(0.0, second - z(13, 13) - 0.25)))


def test_only_the_order_of_the_figures_counts() -> None:
    values = np.random.default_rng(0).beta(8, 2, 120)
    values[80:] *= 0.8
    plain, bent = (control_chart(v.tolist(), ChartOptions()) for v in (values, np.log(values / (1 - values))))
    assert plain.sums[30:] == bent.sums[30:]
    assert [(a.began, a.raised) for a in plain.alarms] == [(a.began, a.raised) for a in bent.alarms] != []


def test_one_bad_case_raises_no_alarm_and_a_rise_none_either() -> None:
    rng = np.random.default_rng(1)
    values = _narrow(rng, 400).tolist()
    assert -score(0.0, sorted(values)) - 0.25 < limit_for(100, 0.25)
    calm = [0.8 + 0.01 * (i % 7) for i in range(60)]
    assert control_chart([*calm, 0.0, *calm], ChartOptions()).alarms == ()
    assert control_chart([*calm, *[0.99] * 60], ChartOptions()).alarms == ()


def test_ties_are_neither_better_nor_worse() -> None:
    assert score(0.9, [0.9] * 20) == 0.0
    assert control_chart([1.0] * 500, ChartOptions()).alarms == ()


def test_an_alarm_says_when_it_began_how_large_it_is_and_when_it_ended() -> None:
    rng = np.random.default_rng(3)
    good, bad = _narrow(rng, 60), _narrow(rng, 60) - 0.2
    chart = control_chart([*good, *bad, *_narrow(rng, 100)], ChartOptions())
    (alarm,) = chart.alarms
    assert abs(alarm.began - 60) <= 5
    assert alarm.began < alarm.raised < 70
    assert abs(alarm.last - 119) <= 5
    assert alarm.before - alarm.during == pytest.approx(0.2, abs=0.02)
    assert alarm.before == pytest.approx(good[: alarm.began].mean())
    assert alarm.ended is not None
    assert 120 < alarm.ended < 180
    assert np.nanmax(chart.sums) == CAP * chart.limit


def test_a_lasting_drop_is_never_learnt_as_normal() -> None:
    rng = np.random.default_rng(4)
    chart = control_chart([*_narrow(rng, 40), *(_narrow(rng, 600) - 0.1)], ChartOptions())
    assert [alarm.ended for alarm in chart.alarms] == [None]


def test_cases_of_a_drop_stay_out_of_later_baselines() -> None:
    rng = np.random.default_rng(5)
    good, bad = (lambda n: _narrow(rng, n)), (lambda n: _narrow(rng, n) - 0.15)
    chart = control_chart([*good(50), *bad(80), *good(80), *bad(40)], ChartOptions())
    assert len(chart.alarms) == 2
    assert chart.alarms[1].ended is None
    assert chart.alarms[1].before == pytest.approx(0.9, abs=0.02)


def test_a_reference_evaluation_takes_the_place_of_the_first_cases() -> None:
    rng = np.random.default_rng(6)
    reference, low = _narrow(rng, 50).tolist(), (_narrow(rng, 40) - 0.1).tolist()
    assert control_chart(low, ChartOptions()).alarms == ()  # they were never better
    (alarm,) = control_chart(low, ChartOptions(), reference).alarms
    assert alarm.began == 0
    assert alarm.before == pytest.approx(np.mean(reference))


def test_what_makes_no_chart_is_refused() -> None:
    for options in ({"baseline": 9}, {"allowance": 0.0}, {"run_length": 5.0}, {"run_length": math.nan}):
        with pytest.raises(ValueError, match="expected|give"):
            ChartOptions(**options)
    with pytest.raises(ValueError, match="not finite"):
        control_chart([math.nan], ChartOptions())
    with pytest.raises(ValueError, match="the reference has 3 cases"):
        control_chart([0.9], ChartOptions(), [0.9] * 3)
    assert control_chart([], ChartOptions()).sums == ()
