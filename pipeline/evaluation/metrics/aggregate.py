"""From rows to figures: averages, spreads, bootstrap intervals and pooled sums, and the files that hold them."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.options import (
    COUNTS,
    LESION_COUNTS,
    VOLUMES,
    MetricOptions,
    Structures,
    distance_columns,
    foreground,
    mean_structures,
    overlap_columns,
    quality_columns,
)
from rarevox.pipeline.evaluation.metrics.size_strata import by_lesion_size, by_size
from rarevox.pipeline.files import finite, write_json, write_text
from rarevox.pipeline.words import csv_text

Row = dict[str, Any]


def aggregate(rows: Sequence[Row], structures: Structures, *, options: MetricOptions | None = None) -> dict[str, Any]:
    """The content of ``metrics.json`` from the rows of :func:`rarevox.pipeline.evaluation.metrics.rows.case_rows`.

    For each structure and column: ``mean``, ``std`` (n − 1), ``median``, ``iqr`` [q25, q75], ``ci95`` (percentile
    bootstrap over subjects, seeded) and ``n``, the rows that have a figure. With them per structure ``n_cases``,
    ``n_valid`` (both masks hold voxels), ``n_empty`` (one or both are empty, by status in ``statuses``), ``n_failed``,
    ``pooled`` (voxel sums over all cases and the Dice of those sums: they add up over shards), for references that are
    empty the false-positive volume, and Dice by tertile of the reference volume in ``by_size`` (from six cases on),
    and the lesions of all cases by their own volume in ``by_lesion_size``.
    ``mean_dice`` is the mean over structures (see :func:`rarevox.pipeline.evaluation.metrics.options.mean_structures`)
    of the mean over cases; its interval resamples whole subjects: rows with the same ``subject`` (without one, each
    case), and there is none where a structure has figures of a single one. The order of the rows does not matter.

    Args:
        rows: one per case and structure, those of :func:`rarevox.pipeline.evaluation.metrics.rows.failed_rows` among
            them.
        structures: as given to ``case_rows``; the background is left out unless the options include it.
        options: the conventions that the rows were made with.

    Raises:
        ValueError: two rows for one case and structure, or a row for a structure that is not declared.

    >>> from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
    >>> found = case_rows("a", np.ones((2, 2, 2), int), np.ones((2, 2, 2), int), (1, 1, 1), {"lesion": 1})
    >>> result = aggregate(found + failed_rows("b", {"lesion": 1}, "missing"), {"lesion": 1})
    >>> result["mean_dice"], result["structures"]["lesion"]["n_failed"]
    (0.5, 1)
    """
    options = options or MetricOptions()
    names = list(foreground(structures, options))
    _check(rows, names)
    rows = sorted(rows, key=lambda row: (str(row["case"]), names.index(row["structure"])))
    tables = {name: [row for row in rows if row["structure"] == name] for name in names}
    summaries = {name: summarise(table, options) for name, table in tables.items()}
    counted = mean_structures(structures, options)
    means = [summaries[name]["dice"]["mean"] for name in counted if math.isfinite(summaries[name]["dice"]["mean"])]
    return {
        "mean_dice": float(np.mean(means)) if means else math.nan,
        "mean_dice_ci95": _macro_interval(rows, counted, options),
        "n_cases": len({row["case"] for row in rows}),
        "structures": summaries,
        "failed": [{"case": row["case"], "reason": row["reason"]} for row in tables.get(names[0], []) if _failed(row)]
        if names
        else [],
        "warnings": [
            {"case": row["case"], "warning": row["warning"]} for row in tables.get(names[0], []) if row.get("warning")
        ]
        if names
        else [],
        "cases": rows,
        "conventions": {
            **options.conventions(),
            "mean_over": counted,
            "structure_values": {name: list(values) for name, values in foreground(structures, options).items()},
        },
        "versions": versions(),
    }


def summarise(rows: Sequence[Row], options: MetricOptions) -> dict[str, Any]:
    """The figures of one structure; see :func:`aggregate`."""
    columns = [*overlap_columns(options), *quality_columns(options), *distance_columns(options), *VOLUMES]
    columns += list(LESION_COUNTS) if options.lesions else []
    values = np.array([[_number(row.get(column)) for column in columns] for row in rows], float)
    values = values.reshape(len(rows), len(columns))
    draws = bootstrap_means(values, options, subjects_of(rows))
    summary: dict[str, Any] = {column: _describe(values[:, i], draws[:, i]) for i, column in enumerate(columns)}
    statuses = [row["status"] for row in rows]
    empty = [row for row in rows if row["status"] in ("empty_reference", "empty_both")]
    summary |= {
        "n_cases": len(rows),
        "n_valid": statuses.count("ok"),
        "n_empty": sum(status.startswith("empty") for status in statuses),
        "n_failed": statuses.count("failed"),
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "pooled": pooled(rows),
        "empty_reference_false_positive_ml": _mean_of(empty, "false_positive_ml"),
    }
    # Where the reference is empty, every lesion is a false one.
    summary |= {"empty_reference_false_lesions": _mean_of(empty, "lesions_predicted")} if options.lesions else {}
    strata = {"by_size": by_size(rows), "by_lesion_size": by_lesion_size(rows, options)}
    return summary | {name: part for name, part in strata.items() if part}


def _mean_of(rows: Sequence[Row], column: str) -> dict[str, Any]:
    """Number of rows, and the mean of a column; NaN without any."""
    values = [_number(row.get(column)) for row in rows]
    return {"n": len(values), "mean": float(np.mean(values)) if values else math.nan}


def pooled(rows: Sequence[Row]) -> dict[str, Any]:
    """Voxel sums over all rows and the ratios of the sums; sums of parts add up to the sums of the whole.

    Dice = 2Σtp/(2Σtp+Σfp+Σfn). Failed cases enter with what is known of them: their missed voxels.

    >>> pooled([{"tp": 3, "fp": 1, "fn": 1}, {"tp": 0, "fp": 0, "fn": 1}])["dice"]
    0.6666666666666666
    """
    total = {name: int(sum(row[name] for row in rows if math.isfinite(_number(row.get(name))))) for name in COUNTS}
    tp, fp, fn = total["tp"], total["fp"], total["fn"]
    ratios = {"dice": (2 * tp, 2 * tp + fp + fn), "iou": (tp, tp + fp + fn)}
    ratios |= {"precision": (tp, tp + fp), "recall": (tp, tp + fn)}
    return total | {name: part / whole if whole else math.nan for name, (part, whole) in ratios.items()}


def bootstrap_means(values: np.ndarray, options: MetricOptions, subjects: Sequence[str] | None = None) -> np.ndarray:
    """The means of the columns of a table under resampling of its rows (cases) with replacement.

    All columns see the same draw, so that they stay correlated. NaN entries have no share in a mean; a mean of nothing
    is NaN, and so is every mean of a column with figures of fewer than two subjects, which has no spread to resample.

    Args:
        values: (cases, columns).
        options: ``resamples`` and ``seed``.
        subjects: of each case; those of one subject are drawn together. None: each case is of its own.

    Returns:
        (resamples, columns) means.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    >>> bootstrap_means(np.array([[1.0], [1.0]]), MetricOptions(resamples=3)).tolist()
    [[1.0], [1.0], [1.0]]
    """
    cases, columns = values.shape
    means = np.full((options.resamples, columns), np.nan)
    if cases < 2:
        return means
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    start = 0
    for block in bootstrap_draws(cases, options, subjects):
        draws = block.astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start : start + len(draws)] = (draws @ filled) / (draws @ present.astype(float))
        start += len(draws)
    own = _numbered(cases, subjects)
    means[:, [len(set(own[has])) < 2 for has in present.T]] = np.nan
    return means


def bootstrap_draws(cases: int, options: MetricOptions, subjects: Sequence[str] | None = None) -> Iterator[np.ndarray]:
    """How often each case was drawn: blocks (resamples, cases) of numbers.

    Subjects are drawn with replacement, as many as there are, and each with all its cases, which are alike: cases drawn
    one by one would make an interval too narrow. The same for the same cases, so that whatever is resampled with it
    stays correlated.

    >>> block, = bootstrap_draws(3, MetricOptions(resamples=50), ["a", "b", "a"])
    >>> block.shape, bool((block[:, 0] == block[:, 2]).all()), set((block[:, 0] + block[:, 1]).tolist())
    ((50, 3), True, {2})
    """
    own = _numbered(cases, subjects)
    count = int(own.max()) + 1
    rng = np.random.default_rng(options.seed)
    step = max(1, 4_000_000 // cases)  # at most 32 MB
    for start in range(0, options.resamples, step):
        size = min(step, options.resamples - start)
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=size)
        yield drawn if count == cases else drawn[:, own]


def _numbered(cases: int, subjects: Sequence[str] | None) -> np.ndarray:
    """The number of each case's subject, by first appearance."""
    if subjects is None:
        return np.arange(cases)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(subject, len(numbers)) for subject in subjects])


def subjects_of(rows: Sequence[Row]) -> list[str]:
    """Whose each row's case is: its ``subject``, or where there is none the case itself.

    >>> subjects_of([{"case": "a_1", "subject": "a"}, {"case": "b"}])
    ['a', 'b']
    """
    return [str(row.get("subject") or row["case"]) for row in rows]


def interval(draws: np.ndarray) -> list[float]:
    """The central 95 % of bootstrap draws, [low, high]; NaN where there is none.

    >>> interval(np.arange(101.0))
    [2.5, 97.5]
    """
    draws = draws[np.isfinite(draws)]
    return [float(q) for q in np.percentile(draws, [2.5, 97.5])] if len(draws) else [math.nan, math.nan]


def write_results(folder: str | Path, result: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None) -> Path:
    """Write ``metrics.json`` (``result`` and ``extra``) and ``cases.csv`` (the same rows) into ``folder``.

    In the JSON, figures that are not defined are null; in the table they are empty.

    Returns:
        The path of ``metrics.json``.
    """
    folder = Path(folder)
    write_json(folder / "metrics.json", {**result, **(extra or {})})
    rows = finite(result["cases"])
    columns = list(dict.fromkeys(column for row in rows for column in row)) or ["case", "structure", "dice", "status"]
    write_text(folder / "cases.csv", csv_text(columns, rows))
    return folder / "metrics.json"


def versions() -> dict[str, str]:
    """The versions of what computed the figures.

    >>> sorted(versions())[:2]
    ['monai', 'numpy']
    """
    found = {"python": platform.python_version()}
    for package in ("rarevox", "monai", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _check(rows: Sequence[Row], names: Sequence[str]) -> None:
    seen = set()
    for row in rows:
        key = (row["case"], row["structure"])
        if row["structure"] not in names:
            raise ValueError(f"a row of case {key[0]!r} is for {key[1]!r}; declared structures: {', '.join(names)}")
        if key in seen:
            raise ValueError(f"case {key[0]!r} has two rows for {key[1]!r}; every case counts once")
        seen.add(key)


def _describe(values: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
    """Mean, spread and interval of the finite values; all NaN if there are none."""
    values = values[np.isfinite(values)]
    nothing = [math.nan] * 2
    if not len(values):
        blank = dict.fromkeys(("mean", "std", "median"), math.nan)
        return {**blank, "iqr": nothing, "min": math.nan, "max": math.nan, "ci95": nothing, "n": 0}
    q25, median, q75 = (float(q) for q in np.percentile(values, [25, 50, 75]))
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        "median": median,
        "iqr": [q25, q75],
        "min": float(values.min()),
        "max": float(values.max()),
        "ci95": interval(draws),
        "n": len(values),
    }


def _macro_interval(rows: Sequence[Row], names: Sequence[str], options: MetricOptions) -> list[float]:
    """The interval of the mean over structures: cases are drawn whole, so that structures stay correlated."""
    whose = dict(sorted(zip((str(row["case"]) for row in rows), subjects_of(rows), strict=True)))
    position = {case: index for index, case in enumerate(whose)}
    table = np.full((len(position), len(names)), np.nan)
    for row in rows:
        if row["structure"] in names:
            table[position[str(row["case"])], names.index(row["structure"])] = _number(row["dice"])
    # Of the structures that are in the mean: with one that has a figure and no spread, the mean has none that is known.
    draws = bootstrap_means(table, options, list(whose.values()))[:, np.isfinite(table).any(axis=0)]
    return interval(draws.mean(axis=1)) if draws.size else [math.nan, math.nan]


def _failed(row: Row) -> bool:
    return row["status"] == "failed"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan
