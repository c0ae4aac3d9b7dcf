"""The post-processing that serves an aim best over some cases, and how much of the gain holds on others.

Aims, over cases:

- ``dice``: the mean Dice of the structure;
- ``lesion_f1``: the mean F1 of its lesions, among the rules that cost at most ``dice_cost`` of its mean Dice.

Each rule of ``CANDIDATES`` is first tried alone on its structure; of rules that serve alike the earlier one is taken,
nothing first. The choice is also made once for each subject on the cases of all others and measured on the cases left
out, as that of :mod:`rarevox.pipeline.evaluation.operating.choose` is: a rule whose cross-validated gain is not above 0
is not taken, nor is any from a single subject or from cases of which none holds the structure. Then the rules are
added, the largest gain first, each only if with it the aim's figure of no structure is lower than without, and the mean
Dice of no other structure (rules meet where a structure encloses another).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.metrics.aggregate import bootstrap_means, interval
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.operating.choose import NOWHERE, Aim
from rarevox.pipeline.evaluation.operating.parts import Parts
from rarevox.transforms.clean import clean_labels, clean_regions, read_rules

AIMS = ("dice", "lesion_f1")
WORDS = {"dice": "Dice", "lesion_f1": "lesion F1"}
Rule = dict[str, Any]
SMALL_ML = (0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Volumes under which components are tried without; those under a voxel's change nothing and are never chosen."""
_ALONE: tuple[Rule, ...] = ({}, *({"min_ml": volume} for volume in SMALL_ML), {"largest": True})
CANDIDATES: tuple[Rule, ...] = (*_ALONE, *(rule | {"fill_holes": True} for rule in _ALONE))
"""What is tried for each structure, nothing first."""
_SMALLEST_GAIN = 1e-9
Figures = dict[str, np.ndarray]
"""Of a structure: ``dice``, and ``lesion_f1`` where it is the aim, (cases, trials); NaN where a case has none."""


@dataclass(frozen=True)
class ValidationCase:
    """A validation case as the network left it: ``labels`` and ``reference`` (X, Y, Z), ``spacing_mm``, and whose it
    is, where the dataset says so."""

    name: str
    labels: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, ...]
    subject: str = ""

    def save(self, path: Path) -> None:
        """Write it, compressed."""
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> ValidationCase:
        """Read what :meth:`save` wrote."""
        with np.load(path) as stored:
            spacing = tuple(float(s) for s in stored["spacing_mm"])
            name, subject = str(stored["name"]), str(stored["subject"])
            return cls(name, stored["labels"], stored["reference"], spacing, subject)


def choose(paths: Sequence[Path], parts: Parts, options: MetricOptions, aim: Aim) -> dict[str, Any]:
    """The rules that help, from stored validation cases.

    Args:
        paths: of :meth:`ValidationCase.save`.
        parts: the structures, or the nested regions, which are tried and judged likewise.
        options: the conventions of the figures; lesions are counted where the aim asks for them.
        aim: ``dice`` or ``lesion_f1``, and what that may cost of the mean Dice.

    Returns:
        ``aim``, ``dice_cost``; ``chosen`` (structure → rule); ``without`` and ``with`` (structure → mean Dice), for the
        other aim also ``lesion_f1`` with the same two; ``structures`` (structure → ``rule``, ``taken`` and, where it is
        not, ``reason``, the figures of the rule alone and ``cross_validated``); ``candidates`` (structure →
        ``[{"rule", "dice"}]``, and ``lesion_f1``).
    """
    tried, subjects = {}, [one.subject or one.name for one in map(ValidationCase.load, paths)]
    for name in parts.structures:
        trials = [{name: rule} for rule in CANDIDATES]
        tried[name] = trial_figures(map(ValidationCase.load, paths), parts, trials, options, aim, of=[name])[name]
    held = _held(paths, parts)
    told = {name: _choice(figures, subjects, aim, options, held=name in held) for name, figures in tried.items()}
    chosen: dict[str, Rule] = {}
    without = {name: {key: float(_mean(v)[0]) for key, v in figures.items()} for name, figures in tried.items()}
    reached = without
    taken = [name for name, one in told.items() if one["taken"]]
    for name in sorted(taken, key=lambda n: told[n]["without"] - told[n]["with"]):
        trial = chosen | {name: dict(told[name]["rule"])}  # copied: YAML would write aliases
        found = trial_figures(map(ValidationCase.load, paths), parts, [trial], options, aim)
        means = {one: {key: float(_mean(v)[0]) for key, v in figures.items()} for one, figures in found.items()}
        worse = _worse(name, reached, means, aim)
        if worse:
            told[name] |= {"taken": False, "reason": f"with it {worse} falls"}
        else:
            chosen, reached = trial, means
    result: dict[str, Any] = {"aim": aim.name, "dice_cost": aim.dice_cost, "chosen": chosen}
    for key in ("dice",) if aim.name == "dice" else AIMS:
        pair = {which: {n: m[key] for n, m in of.items()} for which, of in (("without", without), ("with", reached))}
        result |= pair if key == "dice" else {key: pair}
    candidates = {
        name: [
            {"rule": rule, **{key: float(_mean(values)[number]) for key, values in figures.items()}}
            for number, rule in enumerate(CANDIDATES)
        ]
        for name, figures in tried.items()
    }
    return result | {"structures": told, "candidates": candidates}


def trial_figures(
    cases: Iterable[ValidationCase],
    parts: Parts,
    trials: Sequence[Mapping[str, Rule]],
    options: MetricOptions,
    aim: Aim,
    *,
    of: Sequence[str] | None = None,
) -> dict[str, Figures]:
    """The figures of each structure in each case after each trial (structure → rule).

    Args:
        cases: as the network left them.
        parts: the structures, or the nested regions.
        trials: rules.
        options: the conventions of the figures.
        aim: which figures there are beside Dice.
        of: whose are wanted; None for all.
    """
    structures = {name: parts.structures[name] for name in (parts.structures if of is None else of)}
    keys = ("dice",) if aim.name == "dice" else AIMS
    found: dict[str, dict[str, list[list[float]]]] = {name: {key: [] for key in keys} for name in structures}
    for case in cases:
        voxel_ml = float(np.prod(case.spacing_mm)) / 1000.0
        for figures in found.values():
            for column in figures.values():
                column.append([])
        for trial in trials:
            labels = _cleaned(case.labels, trial, parts, voxel_ml)
            for row in case_rows(case.name, labels, case.reference, case.spacing_mm, structures, options=options):
                for key, column in found[row["structure"]].items():
                    column[-1].append(row[key])
    return {name: {key: np.array(v, float) for key, v in figures.items()} for name, figures in found.items()}


def _held(paths: Sequence[Path], parts: Parts) -> set[str]:
    """The structures that the reference of some case holds."""
    values = np.unique(np.concatenate([np.unique(case.reference) for case in map(ValidationCase.load, paths)]))
    return {name for name, own in parts.structures.items() if np.isin(values, own).any()}


def _choice(
    figures: Figures, subjects: Sequence[str], aim: Aim, options: MetricOptions, *, held: bool
) -> dict[str, Any]:
    """The rule for one structure, tried alone, with its figures and the cross-validated ones; ``held``: it is there."""
    best, values = _best(figures, aim), figures[aim.name]
    means = _mean(values)
    told: dict[str, Any] = {"rule": dict(CANDIDATES[best]), "without": float(means[0]), "with": float(means[best])}
    told["cross_validated"] = crossed = _cross_validated(figures, subjects, aim, options)
    if best == 0:
        return told | {"taken": False, "reason": "nothing serves better" if np.isfinite(means).any() else "no figure"}
    if not held:
        return told | {"taken": False, "reason": NOWHERE}
    if crossed is None:
        return told | {"taken": False, "reason": "a single case, or subject, says nothing of others"}
    if not crossed["gain"]["mean"] > _SMALLEST_GAIN:
        return told | {"taken": False, "reason": "it gains nothing on cases that it was not chosen on"}
    return told | {"taken": True}


def _best(figures: Figures, aim: Aim) -> int:
    """The candidate that serves best, as an index; 0 where there is no figure."""
    value = _mean(figures[aim.name])
    if aim.name != "dice":
        dice = _mean(figures["dice"])  # without any figure nothing is held against a rule
        value = np.where(dice < dice[0] - aim.dice_cost - _SMALLEST_GAIN, -np.inf, value)
    value = np.where(np.isfinite(value), value, -np.inf)
    return int(np.argmax(value >= value.max() - _SMALLEST_GAIN)) if np.isfinite(value).any() else 0


def _cross_validated(
    figures: Figures, subjects: Sequence[str], aim: Aim, options: MetricOptions
) -> dict[str, Any] | None:
    """Each case with the rule of all cases of other subjects; None with a single subject."""
    own = np.array(subjects)
    if len(set(subjects)) < 2:
        return None
    picked = np.zeros(len(own), int)
    for subject in set(subjects):
        picked[own == subject] = _best({key: values[own != subject] for key, values in figures.items()}, aim)
    values = figures[aim.name]
    reached = values[np.arange(len(own)), picked]
    told = _summary(reached, subjects, options)
    return told | {"gain": _summary(reached - values[:, 0], subjects, options)}


def _summary(values: np.ndarray, subjects: Sequence[str], options: MetricOptions) -> dict[str, Any]:
    """The mean over cases that have a figure, and its 95 % interval over subjects."""
    ends = interval(bootstrap_means(values[:, None], options, subjects)[:, 0])
    return {"mean": float(_mean(values[:, None])[0]), "ci95": ends}


def _worse(name: str, before: Mapping[str, Any], after: Mapping[str, Any], aim: Aim) -> str:
    """Whose figure falls by a rule of ``name``: of the aim that of any structure, of Dice that of another one."""
    fallen = []
    for other in before:
        for key in dict.fromkeys((aim.name, "dice")):
            first, second = before[other][key], after[other][key]
            asked = key == aim.name or other != name
            if asked and math.isfinite(first) and second < first - _SMALLEST_GAIN:
                fallen.append(f"the mean {WORDS[key]} of {other}")
    return ", ".join(fallen)


def _cleaned(labels: np.ndarray, trial: Mapping[str, Rule], parts: Parts, voxel_ml: float) -> np.ndarray:
    """A label map by rules, as a run with them writes it."""
    values = parts.label_values
    if parts.nested:
        numbers = {name: number for number, name in enumerate(parts.structures, start=1)}
        return clean_regions(labels, read_rules(trial, numbers), values, voxel_ml)
    return clean_labels(labels, read_rules(trial, dict(zip(parts.structures, values[1:], strict=True))), voxel_ml)


def _mean(values: np.ndarray) -> np.ndarray:
    """(cases, trials) → the mean over the cases that have a figure; NaN where none has."""
    known = np.isfinite(values)
    count = known.sum(0)
    return np.divide(np.where(known, values, 0.0).sum(0), count, out=np.full(count.shape, math.nan), where=count > 0)
