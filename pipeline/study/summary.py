"""The figures of a cell from what its training recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.study.rows import CaseDice, HeldOut, Quartiles
from rarevox.pipeline.training.record.run_log import read_rows


def quartiles(values: np.ndarray) -> Quartiles:
    """Median and quartiles of the values that are numbers, interpolated linearly between order statistics.

    >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, np.nan]))
    Quartiles(median=2.5, q1=1.75, q3=3.25)
    """
    known = np.asarray(values, float).ravel()
    known = known[np.isfinite(known)]
    if not len(known):
        return Quartiles()
    q1, median, q3 = (float(q) for q in np.percentile(known, [25, 50, 75]))
    return Quartiles(median, q1, q3)


def batch_dice(record: Mapping[str, np.ndarray]) -> np.ndarray:
    """The Dice of each iteration's batch: the mean over the structures that have one; NaN where none has.

    >>> batch_dice({"dice": np.array([[0.5, np.nan], [0.25, 0.75], [np.nan, np.nan]])}).tolist()
    [0.5, 0.5, nan]
    """
    dice = np.asarray(record["dice"], float)
    known = np.isfinite(dice)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, dice, 0).sum(1) / np.maximum(count, 1), math.nan)


def train_dice(record: Mapping[str, np.ndarray], last: int) -> Quartiles:
    """Of the Dice of the training batch over the last ``last`` iterations, as the GDL paper reports it."""
    return quartiles(batch_dice(record)[-last:])


def constant_dice(record: Mapping[str, np.ndarray], last: int) -> float:
    """What :func:`train_dice` would be of a network that marks every voxel: the median of 2·s / (1 + s), s the share of
    foreground in a batch.

    NaN where the record is of several structures: no such map marks all of them.

    Two batches with 1/2 and 1/3 of foreground, Dice 2/3 and 1/2:
        >>> share = np.array([[0.25, 0.75], [1 / 3, 1 / 3]])
        >>> round(constant_dice({"dice": np.zeros((2, 1)), "foreground_share": share}, 200), 12)
        0.583333333333
    """
    if np.asarray(record["dice"]).shape[-1] != 1 or not len(record["foreground_share"]):
        return math.nan
    share = np.asarray(record["foreground_share"], float)[-last:].mean(axis=1)
    return quartiles(2 * share / (1 + share)).median


def falling(record: Mapping[str, np.ndarray]) -> float:
    """How likely a loss that has reached its plateau would fall so steadily over the last quarter of the iterations.

    The one-sided p-value of Spearman's rank correlation between loss and iteration, which no scale of a loss changes;
    1 for a loss that stays the same, NaN for fewer than eight steps.

    >>> falling({"loss": np.linspace(1, 0, 40)}) < 0.001 < falling({"loss": np.linspace(0, 1, 40)})
    True
    """
    from scipy.stats import spearmanr

    loss = np.asarray(record["loss"], float)
    loss = loss[len(loss) - len(loss) // 4 :]
    loss = loss[np.isfinite(loss)]
    if len(loss) < 8:
        return math.nan
    return 1.0 if np.ptp(loss) == 0 else float(spearmanr(np.arange(len(loss)), loss, alternative="less").pvalue)


def held_out(
    rows: Sequence[Mapping[str, Any]], structures: Sequence[str] = (), *, mean_over: Sequence[str] = ()
) -> HeldOut:
    """The Dice of cases from the rows of an evaluation.

    Args:
        rows: one for each case and structure.
        structures: whose Dice are kept and count; none are all.
        mean_over: which of these the mean and the median are over, as of the evaluation's ``mean_dice``; none are all.

    >>> rows = [{"case": "a", "structure": s, "dice": d} for s, d in (("x", 0.5), ("y", 1.0), ("z", 0.0))]
    >>> found = held_out(rows, ["x", "y"])
    >>> found.mean_dice, found.median_dice, len(found.cases)
    (0.75, 0.75, 2)
    >>> held_out(rows, mean_over=["x", "y"]).mean_dice  # z is a union of these
    0.75
    """
    cases = tuple(
        CaseDice(str(row["case"]), str(row["structure"]), math.nan if row["dice"] is None else float(row["dice"]))
        for row in rows
        if not structures or row["structure"] in structures
    )
    counted = [case for case in cases if structures or not mean_over or case.structure in mean_over]
    means = []
    for name in dict.fromkeys(case.structure for case in counted):
        known = [case.dice for case in counted if case.structure == name and math.isfinite(case.dice)]
        means += [float(np.mean(known))] if known else []
    median = quartiles(np.array([case.dice for case in counted])).median
    over = () if len(counted) == len(cases) else tuple(dict.fromkeys(case.structure for case in counted))
    return HeldOut(cases, float(np.mean(means)) if means else math.nan, median, over)


def step_seconds(run: Path) -> float:
    """Wall time of a run's steps, by its log: from the end of the first to that of the last, and one more."""
    seconds = [row["seconds"] for row in read_rows(run / "logs" / "train.jsonl")]
    if len(seconds) < 2:
        return 0.0
    return float((seconds[-1] - seconds[0]) * len(seconds) / (len(seconds) - 1))
