"""The statistics of a control chart for a sustained drop: cumulative sums of sequential rank scores.

Dice is skewed, bounded, tied at 0 for failures, and its spread is not known beforehand; a chart in units of a standard
deviation that was estimated from a few dozen cases raises false alarms at a rate that nobody can state. Here each case
is replaced by its rank among the cases before it. While nothing changes, the ranks of independent cases are independent
and uniform whatever the distribution of Dice and however few cases the baseline has (Rényi 1962), so that the rate of
false alarms is known. With ties it is lower.

    z_t = Φ⁻¹((r_t − ½) / n_t) / s(n_t)          r_t: mid-rank of case t among n_t cases (itself and those before)
    S_t = max(0, S_{t−1} − z_t − k)              alarm when S_t > h

s(n) is the standard deviation of the scores of n ranks, so that z has mean 0 and variance 1. As a rank score is
bounded, one case, however bad, cannot raise an alarm.

Sources: McDonald, Naval Research Logistics 37, 1990 (cumulative sums of sequential ranks); Hawkins and Olwell,
Cumulative Sum Charts and Charting for Quality Improvement, 1998; Siegmund, Sequential Analysis, 1985 (run length).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

LEAST_BASELINE = 10
CAP = 1.25
"""The sum is held at this multiple of the limit, so that an alarm ends soon after the level is back."""


@dataclass(frozen=True, kw_only=True)
class ChartOptions:
    """The design of a chart.

    Attributes:
        baseline: the first cases, which raise no alarm; more of them notice a drop sooner.
        allowance: k, half the drop, in standard deviations of the rank score, that the chart is best at. Of 0.25, 0.375
            and 0.5 the smallest noticed most drops of 0.05 and 0.1 in ``benchmarks/monitor.py``.
        run_length: cases from one false alarm to the next, on average, while nothing changes.

    Raises:
        ValueError: a value that makes no chart.
    """

    baseline: int = 30
    allowance: float = 0.25
    run_length: float = 1000.0

    def __post_init__(self) -> None:
        if self.baseline < LEAST_BASELINE:
            raise ValueError(f"a baseline of {self.baseline} cases is too short; give {LEAST_BASELINE} or more")
        if not self.allowance > 0:
            raise ValueError(f"the allowance is {self.allowance}; expected a number above 0")
        if not 10 <= self.run_length < math.inf:
            raise ValueError(f"one false alarm in {self.run_length:g} cases was asked for; give 10 cases or more")


@dataclass(frozen=True)
class Alarm:
    """A sustained drop.

    Attributes:
        began: index of the first case of the drop: the likeliest change of the mean of z since the sum was last 0.
        raised: index of the case at which the sum passed the limit.
        last: index of the last case of the drop, as far as it can be told: where the sum of −z less half the drop in z
            is highest.
        ended: index of the case at which the sum was back at 0, or None while the alarm stands.
        before: mean over the cases before ``began`` that the drop is measured against.
        during: mean from ``began`` to ``last``.
        before_median, during_median: the medians of the same cases.
    """

    began: int
    raised: int
    last: int
    ended: int | None
    before: float
    during: float
    before_median: float
    during_median: float


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        sums: S of each case; NaN for the baseline.
        limit: h.
        alarms: in order of time; only the last can stand.
    """

    sums: tuple[float, ...]
    limit: float
    alarms: tuple[Alarm, ...]


def control_chart(values: Sequence[float], options: ChartOptions, reference: Sequence[float] = ()) -> Chart:
    """Look for sustained drops in a series.

    From the case that raises an alarm on, ranks are taken among the cases before the drop alone, so that a level that
    stays low is never learnt as the normal one; k is half the drop in z, so that the alarm ends (the sum is 0 again)
    soon after the level is back. The cases of a drop stay out of all later ranks.

    Args:
        values: the figures in order of time, all finite; higher is better.
        options: the design.
        reference: figures of a reference evaluation that the baseline is taken from instead of the first ``values``.

    Raises:
        ValueError: a figure that is not finite, or a reference of fewer than ``LEAST_BASELINE`` cases.

    >>> steady = [0.8, 0.9] * 10
    >>> chart = control_chart(steady + [0.6] * 12, ChartOptions(baseline=20))
    >>> [(alarm.began, alarm.ended, round(alarm.before - alarm.during, 2)) for alarm in chart.alarms]
    [(20, None, 0.25)]
    """
    if not all(map(math.isfinite, [*values, *reference])):
        raise ValueError("a figure is not finite; leave such cases out before")
    if reference and len(reference) < LEAST_BASELINE:
        raise ValueError(f"the reference has {len(reference)} cases; expected {LEAST_BASELINE} or more")
    walk = _Walk(list(values), options, list(reference))
    for index in range(walk.start, len(values)):
        walk.step(index)
    walk.close()
    return Chart(tuple(walk.sums), walk.limit, tuple(walk.alarms))


def limit_for(run_length: float, allowance: float) -> float:
    """The limit h at which a cumulative sum of standard normal scores has this average run length.

    Siegmund's approximation ARL = (exp(2kb) − 2kb − 1) / (2k²) with b = h + 1.166, solved for h; 0 at the least.

    >>> round(limit_for(1000, 0.25), 2)
    8.58
    """

    def excess(h: float) -> float:
        x = 2 * allowance * (h + 1.166)
        return (math.expm1(x) - x) / (2 * allowance**2) - run_length

    return 0.0 if excess(0.0) >= 0 else float(brentq(excess, 0.0, 350.0 / allowance))


def score(value: float, before: Sequence[float]) -> float:
    """The standardised normal score z of a value among the sorted values before it.

    >>> score(0.5, [0.1, 0.9])
    0.0
    >>> round(score(0.0, [0.1] * 9), 3), round(score(0.2, [0.1] * 9), 3)
    (-1.754, 1.754)
    """
    below, through = bisect_left(before, value), bisect_right(before, value)
    n = len(before) + 1
    middle = (below + through + 2) / 2  # the mid-rank of a value that ties with (through − below) others
    return float(ndtri((middle - 0.5) / n)) / _spread(n)


@lru_cache(maxsize=100_000)
def _spread(n: int) -> float:
    """The standard deviation of the normal scores of the ranks 1 to n."""
    return float(np.sqrt(np.mean(ndtri((np.arange(n) + 0.5) / n) ** 2))) if n > 1 else 1.0


class _Walk:
    """The state of a chart as it goes along a series."""

    def __init__(self, values: list[float], options: ChartOptions, reference: list[float]) -> None:
        self.values, self.options = values, options
        self.start = 0 if reference else min(options.baseline, len(values))
        self.normal = [*reference, *values[: self.start]]
        self.before = sorted(self.normal)  # what ranks are taken among: with the cases since the sum was last 0
        self.limit = limit_for(options.run_length, options.allowance)
        self.sums = [math.nan] * self.start
        self.sum, self.began, self.raised, self.drop = 0.0, self.start, -1, 0.0
        self.losses: list[float] = []  # −z of the cases since began
        self.alarms: list[Alarm] = []

    def step(self, index: int) -> None:
        """One more case."""
        value, standing = self.values[index], self.raised >= 0
        self.losses.append(-score(value, self.before))
        allowance = max(self.options.allowance, self.drop / 2 if standing else 0.0)
        self.sum = min(max(0.0, self.sum + self.losses[-1] - allowance), CAP * self.limit)
        self.sums.append(self.sum)
        if not standing:
            insort(self.before, value)
        if self.sum > self.limit and not standing:
            self._raise(index)
        elif self.sum == 0.0:
            if standing:
                self._end(index)
            else:
                self.normal += self.values[self.began : index + 1]
            self.began, self.losses = index + 1, []

    def close(self) -> None:
        """Note an alarm that stands at the end of the series."""
        if self.raised >= 0:
            self._end(None)

    def _raise(self, index: int) -> None:
        """Find the likeliest beginning since the sum was last 0; the cases before it are normal."""
        tail = np.array(self.losses[::-1])
        sums, counts = np.cumsum(tail), np.arange(1, len(tail) + 1)
        n = int(counts[np.argmax(np.where(sums > 0, sums**2 / counts, 0.0))])
        began = index + 1 - n
        self.normal += self.values[self.began : began]
        self.before = sorted(self.normal)
        self.began, self.raised, self.losses = began, index, self.losses[-n:]
        self.drop = float(sums[n - 1] / n)

    def _end(self, ended: int | None) -> None:
        last = self.began + int(np.argmax(np.cumsum(np.array(self.losses) - self.drop / 2)))
        during = self.values[self.began : last + 1]
        figures = [float(f(x)) for f in (np.mean, np.median) for x in (self.normal, during)]
        self.alarms.append(Alarm(self.began, self.raised, last, ended, *figures))
        self.raised = -1
