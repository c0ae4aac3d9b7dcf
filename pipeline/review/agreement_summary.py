"""From the rows of all cases to the figures of annotators, structures and the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, bootstrap_means, interval
from rarevox.pipeline.evaluation.metrics.options import (
    MetricOptions,
    Structures,
    distance_columns,
    foreground,
    mean_structures,
    overlap_columns,
)

Row = dict[str, Any]


def pair_summary(
    rows: Sequence[Row], structures: Structures, options: MetricOptions, flag_below: float
) -> dict[str, Any]:
    """By structure: the agreement of two annotators, and how many cases are flagged.

    A case's figure is the mean over its pairs of annotators; ``mean``, ``ci95`` (bootstrap over cases, as the pairs of
    one case are not independent) and ``n`` are over cases. ``lowest`` is the lowest Dice of any pair.
    """
    found = {}
    flags = flagged(rows, flag_below)
    for name in foreground(structures, options):
        mine = [row for row in rows if row["relation"] == "pair" and row["structure"] == name]
        columns = overlap_columns(options) + distance_columns(options)
        figures = {column: describe(_by_case(mine, column), options) for column in columns}
        dice = [row["dice"] for row in mine if math.isfinite(row["dice"])]
        found[name] = {
            "pairs": figures,
            "lowest": min(dice, default=math.nan),
            "n_flagged": sum(flag["structure"] == name for flag in flags),
        }
    return found


def flagged(rows: Sequence[Row], below: float) -> list[dict[str, Any]]:
    """The cases and structures where two annotators' Dice is below this, the lowest first; names that pair."""
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["relation"] == "pair" and math.isfinite(row["dice"]):
            pairs.setdefault((row["case"], row["structure"]), []).append(row)
    found = []
    for (case, structure), mine in pairs.items():
        worst = min(mine, key=lambda row: row["dice"])
        if worst["dice"] < below:
            mean = float(np.mean([row["dice"] for row in mine]))
            names = {key: worst[key] for key in ("first", "second", "dice")}
            found.append({"case": case, "structure": structure, **names, "mean": mean})
    return sorted(found, key=lambda flag: (flag["dice"], flag["case"], flag["structure"]))


def matrix(rows: Sequence[Row], annotators: Sequence[str], structures: Sequence[str]) -> list[list[float]]:
    """(annotators, annotators) the mean over structures of the mean Dice over the cases that both have.

    NaN on the diagonal, and where two annotators have no case in common.
    """
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["relation"] == "pair" and math.isfinite(row["dice"]):
            for names in ((row["first"], row["second"]), (row["second"], row["first"])):
                sums.setdefault((*names, row["structure"]), []).append(row["dice"])

    def cell(first: str, second: str) -> float:
        means = [np.mean(sums[key]) for name in structures if (key := (first, second, name)) in sums]
        return float(np.mean(means)) if means else math.nan

    return [[cell(first, second) for second in annotators] for first in annotators]


def annotator_summary(
    name: str, rows: Sequence[Row], performance: Sequence[Row], structures: Structures, options: MetricOptions
) -> dict[str, Any]:
    """One annotator against the consensus of the others and against each other one, with STAPLE's performance."""
    labels = {value: label for label, value in _single(structures, options).items()}
    own = [row for row in performance if row["annotator"] == name]

    def rate(value: int, key: str) -> float:
        known = [row[key] for row in own if row["value"] == value and math.isfinite(row[key])]
        return float(np.mean(known)) if known else math.nan

    rates = {
        labels.get(value, f"label_{value}"): {key: rate(value, key) for key in ("sensitivity", "specificity")}
        for value in sorted({row["value"] for row in own})
    }
    counted = mean_structures(structures, options)
    with_others = [
        row
        for row in rows
        if row["relation"] == "pair" and name in (row["first"], row["second"]) and row["structure"] in counted
    ]
    against = _aggregate([r for r in rows if r["relation"] == "consensus" and r["first"] == name], structures, options)
    return {"name": name, **against, "with_others": _macro(with_others, options), "staple": rates}


def model_summary(
    rows: Sequence[Row], annotators: Sequence[str], structures: Structures, options: MetricOptions
) -> dict[str, Any]:
    """The model against the consensus of all, against each annotator, and beside each annotator.

    ``beside``: both are compared with the same map, the consensus of the *other* annotators, over the annotator's
    cases; ``difference`` is the model's Dice less the annotator's (mean over structures), its interval the paired
    bootstrap.
    """
    against = _aggregate([row for row in rows if row["relation"] == "model_consensus"], structures, options)
    rows = [row for row in rows if row["structure"] in mean_structures(structures, options)]
    pairs = [row for row in rows if row["relation"] == "model_pair"]
    beside = []
    for name in annotators:
        model = _over_structures([r for r in rows if r["relation"] == "model_without" and r["second"] == name])
        person = _over_structures([r for r in rows if r["relation"] == "consensus" and r["first"] == name])
        cases = sorted(set(model) & set(person))
        gaps = describe({case: model[case] - person[case] for case in cases}, options)
        beside.append(
            {
                "annotator": name,
                "n": gaps["n"],
                "model": _mean([model[case] for case in cases]),
                "annotator_dice": _mean([person[case] for case in cases]),
                "difference": gaps["mean"],
                "ci95": gaps["ci95"],
            }
        )
    with_each = {name: _macro([row for row in pairs if row["second"] == name], options) for name in annotators}
    return {**against, "with_annotators": _macro(pairs, options), "with_each": with_each, "beside": beside}


def describe(by_case: Mapping[str, float], options: MetricOptions) -> dict[str, Any]:
    """``mean``, ``ci95`` (percentile bootstrap over cases) and ``n`` of the figures that are defined.

    >>> describe({"a": 0.5, "b": math.nan}, MetricOptions())
    {'mean': 0.5, 'ci95': [nan, nan], 'n': 1}
    """
    values = np.array([by_case[case] for case in sorted(by_case) if math.isfinite(by_case[case])], float)
    ci95 = interval(bootstrap_means(values[:, None], options)[:, 0])
    return {"mean": float(values.mean()) if len(values) else math.nan, "ci95": ci95, "n": len(values)}


def _aggregate(rows: Sequence[Row], structures: Structures, options: MetricOptions) -> dict[str, Any]:
    plain = [{key: value for key, value in row.items() if key not in ("relation", "first", "second")} for row in rows]
    result = aggregate(plain, structures, options=options)
    return {key: result[key] for key in ("n_cases", "mean_dice", "mean_dice_ci95", "structures")}


def _macro(rows: Sequence[Row], options: MetricOptions) -> dict[str, Any]:
    """Dice as the mean over structures and over the pairs of a case, described over cases."""
    return describe(_over_structures(rows), options)


def _over_structures(rows: Sequence[Row]) -> dict[str, float]:
    """Case → mean Dice over its rows."""
    return _by_case(rows, "dice")


def _by_case(rows: Sequence[Row], column: str) -> dict[str, float]:
    """Case → mean of a column over its rows that have a figure; NaN if none has."""
    return _grouped(rows, column, lambda values: _mean([v for v in values if math.isfinite(v)]))


def _grouped(rows: Sequence[Row], column: str, reduce: Callable[[list[float]], float]) -> dict[str, float]:
    cases: dict[str, list[float]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(float(row[column]))
    return {case: reduce(values) for case, values in cases.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _single(structures: Structures, options: MetricOptions) -> dict[str, int]:
    """The structures that are one label value."""
    return {name: values[0] for name, values in foreground(structures, options).items() if len(values) == 1}
