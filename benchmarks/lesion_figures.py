"""Figures of scored scans with lesions, and the interval of their difference between two methods.

A row is a scan: ``dice``, ``lesions`` (of the reference), ``found`` (of these), ``predicted``, ``right`` (of these).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def f1(rows: list[dict[str, Any]]) -> float:
    """Of lesions: harmonic mean of the share of lesions found and the share of predicted ones that are right."""
    recall = sum(row["found"] for row in rows) / max(sum(row["lesions"] for row in rows), 1)
    precision = sum(row["right"] for row in rows) / max(sum(row["predicted"] for row in rows), 1)
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def dice(rows: list[dict[str, Any]]) -> float:
    """Mean over scans."""
    return float(np.mean([row["dice"] for row in rows]))


def interval(figure: Any, first: dict[int, Any], second: dict[int, Any], draws: int = 10_000) -> tuple[float, float]:
    """Of the difference of a figure between two methods: 95 % of a bootstrap over patients, paired."""
    random, patients = np.random.default_rng(0), sorted(first)
    drawn = random.integers(len(patients), size=(draws, len(patients)))
    differences = []
    for draw in np.unique(np.sort(drawn), axis=0, return_inverse=True)[0]:
        rows = [[row for k in draw for row in one[patients[k]]] for one in (first, second)]
        differences.append(figure(rows[0]) - figure(rows[1]))
    which = np.unique(np.sort(drawn), axis=0, return_inverse=True)[1].ravel()
    low, high = np.percentile(np.array(differences)[which], [2.5, 97.5])
    return float(low), float(high)
