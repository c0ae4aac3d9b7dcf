"""Simulated Dice under the chart of `rarevox monitor` and under a classical one, in one run.

    python benchmarks/monitor.py                 # the tables of docs/review.md
    python benchmarks/monitor.py --runs 100      # a quick look

False alarms: the share of runs without any change that raise an alarm within so many cases after the baseline; stated
is 1 − exp(−cases / run length). Drops: every case after the baseline is lower by so much; the share noticed within 50
and 100 cases and the median delay. The classical chart is a cumulative sum of (mean − Dice) / standard deviation, both
taken from the baseline, with the same allowance and limit.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np

from rarevox.pipeline.review.monitor_chart import ChartOptions, control_chart, limit_for

SERIES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "Beta(8, 2)": lambda rng, n: rng.beta(8, 2, n),
    "Beta(45, 5)": lambda rng, n: rng.beta(45, 5, n),
    "Beta(12, 2), 5 % failed": lambda rng, n: np.where(rng.random(n) < 0.05, 0.0, rng.beta(12, 2, n)),
    "Beta(2, 1), two decimals": lambda rng, n: np.round(rng.beta(2, 1, n), 2),
}
Delay = Callable[[list[float], ChartOptions], float]


def ranked(values: list[float], options: ChartOptions) -> float:
    """Cases until the chart of this project raises its first alarm."""
    alarms = control_chart(values, options).alarms
    return alarms[0].raised + 1 - options.baseline if alarms else math.inf


def classical(values: list[float], options: ChartOptions) -> float:
    """Cases until a chart in standard deviations of the baseline does."""
    first = np.array(values[: options.baseline])
    mean, spread, limit, total = first.mean(), first.std(ddof=1), limit_for(options.run_length, options.allowance), 0.0
    for number, value in enumerate(values[options.baseline :], start=1):
        total = max(0.0, total + (mean - value) / spread - options.allowance)
        if total > limit:
            return number
    return math.inf


def delays(chart: Delay, series: str, drop: float, cases: int, runs: int, options: ChartOptions) -> np.ndarray:
    """The delay in each run; infinite where nothing is raised."""
    rng, found = np.random.default_rng(0), []
    for _ in range(runs):
        values = SERIES[series](rng, options.baseline + cases)
        values[options.baseline :] = np.maximum(values[options.baseline :] - drop, 0.0)
        found.append(chart(values.tolist(), options))
    return np.array(found)


def false_alarms(runs: int, baselines: Sequence[int], cases: int, run_length: float) -> None:
    """Print how often nothing raises an alarm."""
    print(f"| false alarms within {cases} cases; stated {1 - math.exp(-cases / run_length):.3f} | baseline | ", end="")
    print("sequential ranks | classical |\n|---|---|---|---|")
    for series in SERIES:
        for baseline in baselines:
            options = ChartOptions(baseline=baseline, run_length=run_length)
            shares = [np.mean(delays(c, series, 0.0, cases, runs, options) <= cases) for c in (ranked, classical)]
            print(f"| {series} | {baseline} | {shares[0]:.3f} | {shares[1]:.3f} |", flush=True)


def drops(runs: int, baselines: Sequence[int], allowances: Sequence[float], run_length: float) -> None:
    """Print how soon a drop is noticed."""
    print(
        "\n| drop | SD | baseline | allowance | noticed within 50 | within 100 | median delay |\n"
        "|---|---|---|---|---|---|---|"
    )
    for series in SERIES:
        spread = SERIES[series](np.random.default_rng(1), 100_000).std()
        for drop in (0.05, 0.1):
            for baseline in baselines:
                for allowance in allowances:
                    options = ChartOptions(baseline=baseline, run_length=run_length, allowance=allowance)
                    found = delays(ranked, series, drop, 200, runs, options)
                    middle = float(np.median(found))
                    delay = f"{middle:.0f}" if middle <= 200 else "over 200"
                    shares = " | ".join(f"{np.mean(found <= limit):.2f}" for limit in (50, 100))
                    print(
                        f"| {series} − {drop} | {spread:.3f} | {baseline} | {allowance} | {shares} | {delay} |",
                        flush=True,
                    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--baselines", type=int, nargs="+", default=[20, 30, 50])
    parser.add_argument("--allowances", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--run-length", type=float, default=1000.0)
    options = parser.parse_args()
    false_alarms(options.runs, options.baselines, options.cases, options.run_length)
    drops(options.runs // 2, options.baselines, options.allowances, options.run_length)


if __name__ == "__main__":
    main()
