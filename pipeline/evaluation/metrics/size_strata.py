"""Small against large: Dice of cases by the volume of their reference, and lesions by their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.lesions import SIZES
from rarevox.pipeline.evaluation.metrics.options import MetricOptions

Row = dict[str, Any]


def by_size(rows: Sequence[Row]) -> dict[str, Any]:
    """Dice of the cases with a small, medium and large reference: thirds by reference volume, from six cases on."""
    known = [(row["reference_ml"], row["dice"]) for row in rows if _known(row["reference_ml"]) > 0]
    if len(known) < 6:
        return {}
    volumes, dice = np.array(known, float).T
    low, high = np.quantile(volumes, [1 / 3, 2 / 3])
    third = np.where(volumes <= low, 0, np.where(volumes <= high, 1, 2))
    strata = {}
    for index, size in enumerate(SIZES):
        here = third == index
        if here.any():
            strata[size] = {
                "min_ml": float(volumes[here].min()),
                "max_ml": float(volumes[here].max()),
                "dice_mean": float(dice[here].mean()),
                "n": int(here.sum()),
            }
    return strata


def by_lesion_size(rows: Sequence[Row], options: MetricOptions) -> dict[str, Any]:
    """The lesions of all cases together, by class of their own volume; empty if none was counted on either side.

    For each class ``min_ml`` and ``max_ml`` (its bounds; None where it has none), ``reference``, ``detected``,
    ``predicted`` and ``true`` (sums over cases, so parts add up), ``recall`` = detected / reference, ``precision`` =
    true / predicted, and ``dice_mean`` over the reference lesions, where a missed one is 0. Lesions of failed cases
    count as missed.

    >>> row = {"lesions_reference_small": 4, "lesions_detected_small": 3, "lesion_dice_small": 0.5}
    >>> by_lesion_size([row], MetricOptions())["small"]["recall"]
    0.75
    """
    bounds = (0.0, *options.lesion_sizes_ml, None)
    strata: dict[str, Any] = {}
    for index, size in enumerate(SIZES):
        kinds = ("reference", "detected", "predicted", "true")
        total = {kind: int(sum(_or_zero(row.get(f"lesions_{kind}_{size}")) for row in rows)) for kind in kinds}
        weighted = [
            _or_zero(row.get(f"lesion_dice_{size}")) * _or_zero(row.get(f"lesions_reference_{size}")) for row in rows
        ]
        strata[size] = total | {
            "min_ml": bounds[index],
            "max_ml": bounds[index + 1],
            "recall": _ratio(total["detected"], total["reference"]),
            "precision": _ratio(total["true"], total["predicted"]),
            "dice_mean": _ratio(sum(weighted), total["reference"]),
        }
    return strata if any(part["reference"] or part["predicted"] for part in strata.values()) else {}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _known(value: object) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan


def _or_zero(value: object) -> float:
    number = _known(value)
    return number if math.isfinite(number) else 0.0
