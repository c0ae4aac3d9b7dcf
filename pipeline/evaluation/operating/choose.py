"""The threshold and the confidence that serve an aim best over some cases, and how much of the gain holds on others.

Aims, over cases:

- ``dice``: the mean Dice of the structure;
- ``lesion_f1``: the mean F1 of its lesions;
- ``recall``: the share of all reference lesions that is detected, among the candidates with at most so many false
  lesions a scan on average; of equal ones the larger mean Dice.

Lesion figures alone can be served by painting everything: lesions that run into one another are one component, which
touches whatever is there and is never false. So for the last two only candidates count whose mean Dice is at most
``dice_cost`` below that of no choice, or where that is little below half of the best there is.

Of candidates that serve alike the one without a confidence is taken, then the threshold nearest to 1/2.

A choice made on few cases fits these cases. So it is also made once for each subject on all others, and measured on
the cases left out: the mean over cases of that is the cross-validated figure, and what it gains over a threshold of 1/2
is what may be expected of new cases. For Dice and F1, a choice whose cross-validated gain is not above 0 is not taken.
Nor is any from cases of which none holds the structure: there whatever marks least serves best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.aggregate import bootstrap_means, interval
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.candidates import CaseTable

AIMS = ("dice", "lesion_f1", "recall")
THRESHOLDS = (0.01, 0.02, *(n / 20 for n in range(1, 20)), 0.98, 0.99)
CONFIDENCES = (0.0, *(n / 10 for n in range(1, 10)), 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
DEFAULT = THRESHOLDS.index(0.5), 0
"""The candidate that changes nothing."""
NOWHERE = "no validation case holds it: whatever marks least would serve best"
"""Why nothing is chosen for a structure that the cases lack."""
_ALIKE = 1e-12
_BOTH = {"one": 1.0, "zero": 0.0, "nan": math.nan}


@dataclass(frozen=True)
class Aim:
    """What a choice is for.

    Attributes:
        name: one of ``AIMS``.
        false_lesions: of ``recall``: the most a scan, on average.
        dice_cost: of ``lesion_f1`` and ``recall``: what the choice may cost of the mean Dice.
    """

    name: str
    false_lesions: float = 1.0
    dice_cost: float = 0.05


def figures(table: CaseTable, aim: str, options: MetricOptions) -> np.ndarray:
    """Dice, or lesion F1, of one case at every candidate, as the rows of an evaluation have it.

    Args:
        table: of the case.
        aim: ``dice`` or ``lesion_f1``.
        options: the rule for empty masks.

    Returns:
        (thresholds, confidences).
    """
    counts, both = table.counts, _BOTH[options.empty]
    if aim == "dice":
        total = counts["predicted"] + table.voxels
        found = np.divide(2.0 * counts["tp"], total, out=np.full(total.shape, both), where=total > 0)
    else:
        predicted = counts["true"] + counts["false"]
        precision = np.divide(counts["true"], predicted, out=np.zeros(predicted.shape), where=predicted > 0)
        recall = counts["detected"] / max(table.lesions, 1)
        total = precision + recall
        found = np.divide(2 * precision * recall, total, out=np.zeros(total.shape), where=total > 0)
        nothing = (predicted == 0) & (table.lesions == 0)
        found = np.where(nothing, both, found)
        found = np.where(((counts["predicted"] == 0) != (table.voxels == 0)) & ~nothing, 0.0, found)
    if table.voxels == 0 and options.empty != "one":
        found = np.full(found.shape, both)
    return found


def choose(tables: Sequence[CaseTable], aim: Aim, options: MetricOptions) -> tuple[int, int] | None:
    """The best candidate, as indices into ``THRESHOLDS`` and ``CONFIDENCES``; None where nothing meets the aim."""
    # Of cases without a figure of Dice (no reference, and an empty rule without one) nothing is held against it.
    dice = _mean([figures(table, "dice", options) for table in tables])
    if aim.name == "recall":
        rate = np.mean([table.counts["false"] for table in tables], 0)
        value = np.where(rate <= aim.false_lesions, _recall(tables), -np.inf)
    else:
        value = dice if aim.name == "dice" else _mean([figures(table, aim.name, options) for table in tables])
        value = np.where(np.isfinite(value), value, -np.inf)
    if aim.name != "dice":
        # Of a network that is unsure no choice marks nearly nothing, and would excuse everything.
        known = dice[np.isfinite(dice)]
        bound = max(float(dice[DEFAULT]), float(known.max()) / 2) - aim.dice_cost if len(known) else -np.inf
        value = np.where(dice < bound - _ALIKE, -np.inf, value)
    if not np.isfinite(value).any():
        return None
    best = value >= value.max() - _ALIKE
    if aim.name == "recall":
        most = np.where(best, np.nan_to_num(dice, nan=-1.0), -np.inf)
        best = most >= most.max() - _ALIKE
    found = [(int(t), int(q)) for t, q in np.argwhere(best)]
    return min(found, key=lambda one: (one[1], abs(THRESHOLDS[one[0]] - 0.5)))


def choice(tables: Sequence[CaseTable], aim: Aim, options: MetricOptions) -> dict[str, Any]:
    """The choice over all cases with its figures, those of no choice, and the cross-validated ones.

    Returns:
        ``threshold``, ``confidence``, ``taken`` and, where it is not, ``reason``; ``without`` and ``with``, the
        figures of the aim (mean and 95 % interval over subjects; for ``recall`` with ``false_per_scan``), each with the
        ``dice`` and the ``volume_ml`` that come with it (means over cases), beside the references' ``reference_ml``;
        ``cross_validated``: the figures with the choice of the others, ``gain`` over ``without``, and the
        ``chosen`` of each fold; None with a single case.
    """
    if not any(table.voxels for table in tables):
        return {"taken": False, "reason": NOWHERE}
    best = choose(tables, aim, options)
    if best is None:
        some = any(table.lesions for table in tables)
        few = f"no candidate that costs at most {aim.dice_cost:g} of Dice has so few false lesions (--dice-cost)"
        reason = few if aim.name == "recall" and some else "no case has a figure"
        return {"taken": False, "reason": reason}
    told: dict[str, Any] = {"threshold": THRESHOLDS[best[0]], "confidence": CONFIDENCES[best[1]]}
    for key, at in (("without", DEFAULT), ("with", best)):
        told[key] = _figures(tables, [at] * len(tables), aim, options) | _voxels(tables, at, options)
    told["cross_validated"] = crossed = _cross_validated(tables, aim, options)
    if best == DEFAULT:
        return told | {"taken": False, "reason": "a threshold of 0.5 serves best"}
    if aim.name == "recall":
        return told | {"taken": True}
    if crossed is None:
        return told | {"taken": False, "reason": "a single case, or subject, says nothing of others"}
    if not crossed["gain"]["mean"] > _ALIKE:
        return told | {"taken": False, "reason": "it gains nothing on cases that it was not chosen on"}
    return told | {"taken": True}


def _cross_validated(tables: Sequence[CaseTable], aim: Aim, options: MetricOptions) -> dict[str, Any] | None:
    """Each case with the choice of all cases of other subjects."""
    subjects = _subjects(tables)
    if len(set(subjects)) < 2:
        return None
    of_others = {
        subject: choose([t for t, own in zip(tables, subjects, strict=True) if own != subject], aim, options) or DEFAULT
        for subject in set(subjects)
    }
    picked = [of_others[subject] for subject in subjects]
    told = _figures(tables, picked, aim, options)
    told["chosen"] = {table.name: [THRESHOLDS[t], CONFIDENCES[q]] for table, (t, q) in zip(tables, picked, strict=True)}
    if aim.name != "recall":
        values = np.array([figures(table, aim.name, options)[at] for table, at in zip(tables, picked, strict=True)])
        plain = np.array([figures(table, aim.name, options)[DEFAULT] for table in tables])
        told["gain"] = _summary(values - plain, tables, options)
    return told


def _figures(
    tables: Sequence[CaseTable], picked: Sequence[tuple[int, int]], aim: Aim, options: MetricOptions
) -> dict[str, Any]:
    """The figures of the aim where each case has its own candidate."""
    if aim.name != "recall":
        values = np.array([figures(table, aim.name, options)[at] for table, at in zip(tables, picked, strict=True)])
        return _summary(values, tables, options)
    pairs = list(zip(tables, picked, strict=True))
    detected = np.array([table.counts["detected"][at] for table, at in pairs], float)
    false = np.array([table.counts["false"][at] for table, at in pairs], float)
    wanted = np.array([table.lesions for table in tables], float)
    draws = bootstrap_means(np.stack([detected, wanted], 1), options, _subjects(tables))
    with np.errstate(invalid="ignore", divide="ignore"):
        ends = interval(draws[:, 0] / draws[:, 1])
    recall = float(detected.sum() / wanted.sum()) if wanted.sum() else math.nan
    return {"mean": recall, "ci95": ends, "false_per_scan": float(false.mean())}


def _voxels(tables: Sequence[CaseTable], at: tuple[int, int], options: MetricOptions) -> dict[str, float]:
    """The mean Dice, the mean volume at a candidate, and that of the references."""
    dice = _mean([figures(table, "dice", options)[at] for table in tables])
    volumes = [table.counts["predicted"][at] * table.voxel_ml for table in tables]
    there = [table.voxels * table.voxel_ml for table in tables]
    return {"dice": float(dice), "volume_ml": float(np.mean(volumes)), "reference_ml": float(np.mean(there))}


def _subjects(tables: Sequence[CaseTable]) -> list[str]:
    return [table.subject or table.name for table in tables]


def _summary(values: np.ndarray, tables: Sequence[CaseTable], options: MetricOptions) -> dict[str, Any]:
    """The mean over cases that have a figure, and its 95 % interval."""
    known = values[np.isfinite(values)]
    ends = interval(bootstrap_means(values[:, None], options, _subjects(tables))[:, 0])
    return {"mean": float(known.mean()) if len(known) else math.nan, "ci95": ends}


def _recall(tables: Sequence[CaseTable]) -> np.ndarray:
    """The pooled share of reference lesions that is detected, at every candidate; NaN without any."""
    wanted = sum(table.lesions for table in tables)
    return np.sum([table.counts["detected"] for table in tables], 0) / (wanted or math.nan)


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over cases that have a figure; NaN where none has."""
    stack = np.array(values)
    known = np.isfinite(stack)
    count = known.sum(0)
    total = np.where(known, stack, 0.0).sum(0)
    return np.divide(total, count, out=np.full(total.shape, math.nan), where=count > 0)
