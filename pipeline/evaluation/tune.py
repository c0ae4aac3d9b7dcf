"""Post-processing chosen on validation cases: ``rarevox tune-postprocessing RUN DATASET``."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import read_yaml, write_yaml
from rarevox.pipeline.console import Console, console, progress_bar
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.evaluation.beginning import tell_choice_replaced
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.operating.parts import Parts
from rarevox.pipeline.evaluation.out_of_fold import Fold, folds_of
from rarevox.pipeline.evaluation.run_and_dataset import with_ignored
from rarevox.pipeline.figures import figure
from rarevox.pipeline.files import write_json
from rarevox.pipeline.trust.sums import keeping_sums
from rarevox.pipeline.words import counted
from rarevox.transforms.clean import clean_labels, clean_regions, read_rules
from rarevox.transforms.reader import read_scan

Rule = dict[str, Any]
SMALL_ML = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Volumes under which components are tried without; those under a voxel's change nothing and are never chosen."""
_ALONE: tuple[Rule, ...] = ({}, *({"min_ml": volume} for volume in SMALL_ML), {"largest": True})
CANDIDATES: tuple[Rule, ...] = (*_ALONE, *(rule | {"fill_holes": True} for rule in _ALONE))
"""What is tried for each structure, nothing first: of equal candidates the earlier one is taken."""
RESULT_FILE = "post_processing.json"
_SMALLEST_GAIN = 1e-9


@dataclass(frozen=True)
class ValidationCase:
    """A validation case as the network left it: ``labels`` and ``reference`` (X, Y, Z), ``spacing_mm``."""

    name: str
    labels: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, ...]


def tune_post_processing(run: str | Path, dataset: str | Path, *, device: str = "auto", trust: bool = False) -> int:
    """Choose, for each structure of a run, the post-processing with the best mean Dice over the validation cases.

    Of a folder that ``rarevox crossval`` wrote, these are all its training cases, each segmented by the run that has
    not seen it, and all runs get the rules.

    A rule is taken only where it raises the mean Dice of its structure and lowers that of no structure. The choice is
    written into the run's configurations (``post_processing``), replacing an earlier one, and with the figures of all
    candidates into ``RUN/evaluation/post_processing.json`` (``STUDY/post_processing.json``). The test section is never
    looked at.

    Args:
        run: the run folder, or one that ``rarevox crossval`` wrote.
        dataset: folder that ``rarevox prepare`` wrote; its validation section of the run's fold is used.
        device: auto, cpu, cuda or cuda:i.
        trust: take the run's configuration whatever it builds; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        0, or 1 where some validation cases could not be segmented; they are listed, and the rest decides.

    Raises:
        RequestError: no run, no dataset, other structures, no usable validation case.
    """
    data = Dataset.load(dataset)
    folds = folds_of(run, data, trust=trust)
    tell_choice_replaced(folds.runs, "post_processing")
    paths: list[Path] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as kept:
        for fold in folds.loaded(data, ["post_processing={}"], device=device, trust=trust):
            more, reasons = _segment(fold, Path(kept))
            paths, failed = paths + more, failed | reasons
            del fold  # its network, before the next one is loaded
        for case, reason in failed.items():
            console.say("[red]failed[/red] {}: {}", case, reason)
        if not paths:
            raise RequestError(f"no validation case of {data.path} could be used to choose post-processing")
        options = replace(with_ignored(build(folds.config, "metric_options"), data), distances=False, lesions=False)
        result = choose(paths, folds.parts, options)
    for one in folds.runs:
        with keeping_sums(one) as texts:
            for file in (f"configs/{stage}.yaml" for stage in ("train", "evaluate", "inference")):
                texts[file] = write_yaml(read_yaml(one / file) | {"post_processing": result["chosen"]})
    figures, made = folds.results / RESULT_FILE, folds.context(data)
    write_json(figures, result | {"n_cases": len(paths), "failed": failed, "context": made, "versions": versions()})
    _print(result, len(paths))
    console.print(f"written into {folds.configurations}; the figures of all candidates are in {figures}")
    return 1 if failed else 0


def choose(paths: Sequence[Path], parts: Parts, options: MetricOptions) -> dict[str, Any]:
    """The rules that help, from stored validation cases.

    Each candidate is first tried alone on its structure. Then the best ones are added, the largest gain first, each
    only if with it the mean Dice of no structure is lower than without (rules meet where a structure encloses another).
    Nested regions are tried and judged likewise.

    Returns:
        ``chosen`` (structure → rule), ``without`` and ``with`` (structure → mean Dice), ``candidates`` (structure →
        ``[{"rule", "dice"}]``).
    """
    alone = {
        name: mean_dice(_read(paths), parts, [{name: rule} for rule in CANDIDATES], options, of=[name])
        for name in parts.structures
    }
    tried = {name: [means[name] for means in found] for name, found in alone.items()}
    best = {name: int(np.nanargmax(dice)) for name, dice in tried.items() if np.isfinite(dice).any()}
    gains = {name: tried[name][index] - tried[name][0] for name, index in best.items()}
    without = {name: dice[0] for name, dice in tried.items()}
    chosen: dict[str, Rule] = {}
    reached = without
    for name in sorted((n for n in gains if gains[n] > _SMALLEST_GAIN), key=lambda n: -gains[n]):
        trial = chosen | {name: dict(CANDIDATES[best[name]])}  # copied: YAML would write aliases
        means = mean_dice(_read(paths), parts, [trial], options)[0]
        worse = any(means[n] < reached[n] - _SMALLEST_GAIN for n in parts.structures if math.isfinite(reached[n]))
        if not worse:
            chosen, reached = trial, means
    candidates = {
        name: [{"rule": rule, "dice": one} for rule, one in zip(CANDIDATES, dice, strict=True)]
        for name, dice in tried.items()
    }
    return {"chosen": chosen, "without": without, "with": reached, "candidates": candidates}


def mean_dice(
    cases: Iterable[ValidationCase],
    parts: Parts,
    trials: Sequence[Mapping[str, Rule]],
    options: MetricOptions,
    *,
    of: Sequence[str] | None = None,
) -> list[dict[str, float]]:
    """For each trial (structure → rule) the mean Dice of each structure over the cases; NaN where none has a figure.

    Args:
        cases: as the network left them.
        parts: the structures, or the nested regions.
        trials: rules.
        options: the conventions of the figures.
        of: whose Dice is wanted; None for all.
    """
    structures = {name: parts.structures[name] for name in (parts.structures if of is None else of)}
    found: list[dict[str, list[float]]] = [{name: [] for name in structures} for _ in trials]
    for case in cases:
        voxel_ml = float(np.prod(case.spacing_mm)) / 1000.0
        for trial, figures in zip(trials, found, strict=True):
            labels = _cleaned(case.labels, trial, parts, voxel_ml)
            for row in case_rows(case.name, labels, case.reference, case.spacing_mm, structures, options=options):
                figures[row["structure"]].append(row["dice"])
    return [{name: _mean(dice) for name, dice in figures.items()} for figures in found]


def _cleaned(labels: np.ndarray, trial: Mapping[str, Rule], parts: Parts, voxel_ml: float) -> np.ndarray:
    """A label map by rules, as a run with them writes it."""
    values = parts.label_values
    if parts.nested:
        numbers = {name: number for number, name in enumerate(parts.structures, start=1)}
        return clean_regions(labels, read_rules(trial, numbers), values, voxel_ml)
    return clean_labels(labels, read_rules(trial, dict(zip(parts.structures, values[1:], strict=True))), voxel_ml)


def _segment(fold: Fold, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Segment the cases once and store them, so that memory holds one at a time; the files, and why others failed."""
    paths, failed = [], {}
    items = [{key: value for key, value in case.items() if key != "label"} for case in fold.cases]
    with progress_bar() as bar:
        task = bar.add_task("segmenting", total=len(items))
        for number, (case, found) in enumerate(zip(fold.cases, fold.segmenter(items), strict=True)):
            try:
                if found.labels is None:
                    raise ValueError(found.reason)
                scan = read_scan(case["label"], dtype=None)
                if scan.array[0].shape != found.labels.shape:
                    raise ValueError("the reference is on another grid")
                path = folder / f"{fold.number}_{number}.npz"
                reference = np.rint(scan.array[0]).astype(np.int32)
                np.savez_compressed(
                    path, name=found.case, labels=found.labels, reference=reference, spacing_mm=scan.spacing_mm
                )
                paths.append(path)
            except ValueError as error:
                failed[found.case] = reason_of(error)
            bar.advance(task)
    return paths, failed


def _read(paths: Sequence[Path]) -> Iterable[ValidationCase]:
    for path in paths:
        with np.load(path) as stored:
            spacing = tuple(float(s) for s in stored["spacing_mm"])
            yield ValidationCase(str(stored["name"]), stored["labels"], stored["reference"], spacing)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _print(result: Mapping[str, Any], n_cases: int) -> None:
    out = Console()
    cases = counted(n_cases, "validation case")
    out.print(f"mean Dice over {cases}, without and with the post-processing that was chosen:")
    for name, before in result["without"].items():
        rule = ", ".join(f"{key} {value}" for key, value in result["chosen"].get(name, {}).items()) or "none"
        out.print(f"  {name}: {figure(before, 4)} to {figure(result['with'][name], 4)} ({rule})")
