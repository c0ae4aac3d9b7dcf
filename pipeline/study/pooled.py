"""The out-of-fold scores of a cross-validation as one evaluation: every training case once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import target_name, version
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.evaluation.calibration.measure import add_calibrations
from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, read_options
from rarevox.pipeline.evaluation.operating.added import Lesions, add_curves, read_detections
from rarevox.pipeline.evaluation.operating.table import write_curves
from rarevox.pipeline.evaluation.outcome import outcome
from rarevox.pipeline.evaluation.report.page import CaseImages, shown_cases, write_report
from rarevox.pipeline.evaluation.report.run import case_images
from rarevox.pipeline.files import read_json
from rarevox.pipeline.gates import read_gates
from rarevox.pipeline.trust.gate import run_config
from rarevox.pipeline.words import counted

EVALUATED = Path("evaluation") / "validation"


def fold_rows(run: Path, fold: int) -> list[dict[str, Any]]:
    """The rows of a fold's own cases, with the fold; what is not defined is NaN again.

    Raises:
        RequestError: the fold was not evaluated.
    """
    rows = read_json(run / EVALUATED / "metrics.json")["cases"]
    return [{key: math.nan if value is None else value for key, value in row.items()} | {"fold": fold} for row in rows]


def pool(study: Path, runs: Mapping[int, str], data: Dataset, *, trust: bool) -> dict[str, Any]:
    """Write ``metrics.json``, ``cases.csv`` and ``report.html`` of all folds' cases; returns the content of the first.

    The figures are those of ``rarevox evaluate`` over the union of the rows: means and intervals over all cases, and
    sums that are the folds' sums; ``calibration`` and ``curves`` (also ``curves.csv``) are of all cases at once.
    ``folds`` has the figures of each fold.

    Args:
        study: the folder of the cross-validation.
        runs: fold to the folder of its run, relative to the study.
        data: the dataset.
        trust: see :mod:`rarevox.pipeline.trust.gate`.

    Raises:
        RequestError: a fold was not evaluated, the cases are not the dataset's training cases, each once, the folds
            have other structures, or their labels or figures were made by other rules.
    """
    by_fold = {fold: fold_rows(study / run, fold) for fold, run in runs.items()}
    rows = [row for fold in by_fold.values() for row in fold]
    _every_case_once(rows, data)
    decided, conventions = _alike(study, runs, _decided), _alike(study, runs, _conventions)
    config = run_config(study / next(iter(runs.values())), "evaluate", trust=trust)
    # Those of the rows: a fold's configuration may ask for others, of which --set told when they were made.
    options = read_options({}, **conventions)
    background = {name: value for name, value in data.labels.items() if value == 0 and options.include_background}
    structures = {**background, **data.scored}
    _all_structures(study, by_fold, runs, structures)
    gates = read_gates(config["gates"], data.scored)
    result = outcome(rows, structures, options=options, gates=gates)
    context = {
        "network": target_name(config["network_def"]),
        "dataset": data.name,
        "section": "training, each case by the run that had not seen it",
        "fingerprint": data.fingerprint,
        "folds": len(runs),
        "rarevox": version("rarevox"),
        **decided,
    }
    result |= pooled_counts([study / run for run in runs.values()], options, data.subjects)
    result["folds"] = [_of_fold(study / runs[fold], runs[fold], fold, rows) for fold, rows in by_fold.items()]
    write_results(study, result, extra={"context": context})
    write_curves(study, result.get("curves"))
    means = {
        f"fold {fold['fold']}": f"mean Dice {fold['mean_dice']:.3f}, {counted(fold['cases'], 'case')}"
        for fold in result["folds"]
    }
    write_report(
        study / "report.html",
        result,
        title=f"{context['network']} on {data.name}, {len(runs)} folds",
        cases_images=_images(study, runs, data, result, options.ignored_value),
        structures=result["conventions"].get("structure_values"),
        context=context | means,
    )
    return result


def pooled_counts(runs: Sequence[Path], options: MetricOptions, subjects: Mapping[str, str]) -> dict[str, Any]:
    """``calibration`` and ``curves`` over all folds' cases, as far as every fold has them; what is amiss is told.

    Args:
        runs: of the folds.
        options: the conventions of the folds.
        subjects: of cases that are not of their own.
    """
    results = [read_json(run / EVALUATED / "metrics.json") for run in runs]
    found: dict[str, Any] = {}
    for key in ("calibration", "curves"):
        parts = [result[key] for result in results if result.get(key)]
        if not parts:
            continue
        try:
            if len(parts) < len(results):
                raise ValueError("not every fold has them")
            if key == "calibration":
                found[key] = add_calibrations(parts)
            else:
                found[key] = add_curves(parts, _lesions(runs, parts), options, subjects)
        except (RequestError, LookupError, TypeError, ValueError) as error:
            console.say("[yellow]no {} over all folds[/yellow]: {}", key, reason_of(error))
    return found


def _lesions(runs: Sequence[Path], parts: Sequence[Mapping[str, Any]]) -> list[Lesions]:
    """The lesions of each fold's cases, where they were counted."""
    counted = any("lesions" in one for part in parts for one in part["structures"].values())
    return [read_detections(run / EVALUATED) if counted else {} for run in runs]


def _decided(run: Path) -> dict[str, Any]:
    """By what the rows of a fold were made; its configuration may have been tuned since."""
    context = read_json(run / EVALUATED / "metrics.json").get("context", {})
    return {key: context.get(key, "none") for key in ("operating_points", "post_processing")}


def _conventions(run: Path) -> dict[str, Any]:
    """Under which the rows of a fold were made, as far as the version that made them states it."""
    stated = read_json(run / EVALUATED / "metrics.json").get("conventions", {})
    found = {field.name: stated[field.name] for field in fields(MetricOptions) if field.name in stated}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def _alike(study: Path, runs: Mapping[int, str], of: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """By what the rows of all folds were made, or under which conventions.

    Raises:
        RequestError: those of one were made otherwise: it was evaluated again since something was chosen.
    """
    first, *others = ((fold, of(study / run)) for fold, run in runs.items())
    for fold, found in others:
        for key in sorted(found.keys() & first[1].keys()):  # what an earlier version did not state yet is no difference
            own, other = found[key], first[1][key]
            if own != other:
                said = f"fold {fold} was evaluated with {key} {own}, and fold {first[0]} with {other}"
                raise RequestError(f"{said}: {_evaluate_anew(study, runs)}")
    return first[1]


def _all_structures(
    study: Path, by_fold: Mapping[int, list[dict[str, Any]]], runs: Mapping[int, str], structures: Mapping[str, Any]
) -> None:
    """Every fold has rows of every structure that is scored, and of no other.

    Raises:
        RequestError: the dataset's unions were changed between the evaluations of its folds.
    """
    for fold, rows in by_fold.items():
        scored = {row["structure"] for row in rows}
        if scored != set(structures):
            odd = ", ".join(sorted(scored ^ set(structures)))
            said = f"fold {fold} was scored for other structures than the dataset has now ({odd})"
            raise RequestError(f"{said}: {_evaluate_anew(study, runs)}")


def _evaluate_anew(study: Path, runs: Mapping[int, str]) -> str:
    """What to do."""
    commands = "; ".join(f"rarevox evaluate {study / run} DATASET --section validation" for run in runs.values())
    return f"evaluate all of them alike ({commands}), and the same command goes on"


def _every_case_once(rows: list[dict[str, Any]], data: Dataset) -> None:
    """Each pair of case and structure once, and the cases those of the dataset."""
    pairs = [(row["case"], row["structure"]) for row in rows]
    cases, wanted = {case for case, _ in pairs}, {str(case["case"]) for case in data.training}
    if len(set(pairs)) < len(pairs) or cases != wanted:
        odd = sorted(cases ^ wanted)[:3] or [pairs[0][0]]
        raise RequestError(
            f"the folds' cases are not the training cases of {data.path}, each once ({', '.join(odd)} …); "
            "the dataset has changed since: cross-validate into another --output"
        )


def _of_fold(run: Path, relative: str, fold: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one fold, from its own evaluation."""
    own = read_json(run / EVALUATED / "metrics.json")
    mean = own["mean_dice"]
    return {
        "fold": fold,
        "run": relative,
        "cases": len({row["case"] for row in rows}),
        "mean_dice": math.nan if mean is None else mean,
        "structures": {name: {"dice": s["dice"], "pooled": s["pooled"]} for name, s in own["structures"].items()},
    }


def _images(
    study: Path, runs: Mapping[int, str], data: Dataset, result: Mapping[str, Any], ignored: int | None
) -> Iterator[CaseImages]:
    """The cases that a report draws, each with the map of its own fold's run."""
    cases = {str(case["case"]): case for case in data.section("training")}
    for name in shown_cases(result):
        if name in cases:
            found = case_images(cases[name], study / runs[cases[name]["fold"]] / EVALUATED, ignored)
            if found is not None:
                yield found
