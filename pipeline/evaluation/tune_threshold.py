"""Operating points chosen on validation cases for an aim: ``rarevox tune-threshold RUN DATASET``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import read_yaml, write_yaml
from rarevox.pipeline.console import Console, console, progress_bar
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.evaluation.beginning import tell_choice_replaced
from rarevox.pipeline.evaluation.calibration.measure import read_reference
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.operating.candidates import Candidates, StoredCase, case_table
from rarevox.pipeline.evaluation.operating.choose import AIMS, CONFIDENCES, THRESHOLDS, Aim, choice
from rarevox.pipeline.evaluation.operating.parts import Parts
from rarevox.pipeline.evaluation.out_of_fold import Fold, folds_of
from rarevox.pipeline.evaluation.run_and_dataset import as_items, with_ignored
from rarevox.pipeline.figures import figure, interval_text
from rarevox.pipeline.files import write_json
from rarevox.pipeline.inference.brought_up import brought_up
from rarevox.pipeline.trust.sums import keeping_sums
from rarevox.pipeline.words import counted

RESULT_FILE = "operating_points.json"
MUCH = 3.0
"""Times the references' volume, from which figures of lesions say little: one component may touch all of them."""
STAGES = ("train", "evaluate", "inference")
ROUNDS = 4
"""Of several structures, how often each is chosen anew beside the others at most."""
_WORDS = {"dice": "Dice", "lesion_f1": "lesion F1", "recall": "lesion recall"}


def tune_threshold(
    run: str | Path,
    dataset: str | Path,
    *,
    aim: str = "dice",
    false_lesions: float = 1.0,
    dice_cost: float = 0.05,
    device: str = "auto",
    trust: bool = False,
) -> int:
    """Choose the threshold and the confidence of each structure of a run on its validation cases, and store them.

    Of a folder that ``rarevox crossval`` wrote, these are all its training cases, each segmented by the run that has
    not seen it, and all runs get the points.

    What is tried, how it is chosen and when it is taken: :mod:`rarevox.pipeline.evaluation.operating.choose`.
    Several structures are chosen in turn, each beside the points of the others, until none moves. Where the mean Dice
    of a structure would fall by all of them, they are chosen one after the other instead, and one under which that of
    another structure falls is not taken. The points go into the run's configurations (``operating_points``), replacing
    earlier ones, and with all figures into ``RUN/evaluation/operating_points.json`` (``STUDY/operating_points.json``).
    Post-processing comes after, and should be tuned after. The test section is never looked at.

    Args:
        run: the run folder, or one that ``rarevox crossval`` wrote.
        dataset: folder that ``rarevox prepare`` wrote; its validation section of the run's fold is used.
        aim: ``dice``, ``lesion_f1`` or ``recall``.
        false_lesions: of ``recall``: the most a scan, on average.
        dice_cost: of ``lesion_f1`` and ``recall``: what the choice may cost of the mean Dice.
        device: auto, cpu, cuda or cuda:i.
        trust: take the run's configuration whatever it builds; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        0, or 1 where some validation cases could not be used; they are listed, and the rest decides.

    Raises:
        RequestError: no run, no dataset, other structures, an unknown aim, no usable validation case.
    """
    if aim not in AIMS or not false_lesions >= 0 or not dice_cost >= 0:
        said = f"aim {aim!r} with {false_lesions} false lesions a scan and {dice_cost} of Dice"
        raise RequestError(f"{said}: expected one of {', '.join(AIMS)}, and numbers of 0 or more")
    data = Dataset.load(dataset)
    folds = folds_of(run, data, trust=trust)
    tell_choice_replaced(folds.runs, "operating_points")
    parts, settings = folds.parts, ["post_processing={}", "operating_points={}"]
    files: list[Path] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as kept:
        for fold in folds.loaded(data, settings, device=device, trust=trust):
            if getattr(fold.segmenter.inferer, "decision", None) is None:
                said = f"the inferer of {fold.segmenter.run} knows no operating points"
                raise RequestError(f"{said}; see inferer in its configurations")
            more, reasons = _gather(fold, parts.nested, Path(kept))
            files, failed = files + more, failed | reasons
            del fold  # its network, before the next one is loaded
        for case, reason in failed.items():
            console.say("[red]failed[/red] {}: {}", case, reason)
        if not files:
            raise RequestError(f"no validation case of {data.path} could be used to choose operating points")
        options = replace(with_ignored(build(folds.config, "metric_options"), data), distances=False)
        result = points_of(files, parts, Aim(aim, float(false_lesions), float(dice_cost)), options)
    for one in folds.runs:
        _store(one, result["chosen"])
    file, made = folds.results / RESULT_FILE, folds.context(data)
    write_json(file, result | {"n_cases": len(files), "failed": failed, "context": made, "versions": versions()})
    _print(result, len(files))
    if any(read_yaml(one / "configs" / "inference.yaml")["post_processing"] for one in folds.runs):
        console.print("the run's post-processing was chosen for other labels; rarevox tune-postprocessing chooses anew")
    wrote = f"written into {folds.configurations}" if result["chosen"] else f"none is set in {folds.configurations}"
    console.print(f"{wrote}; the figures are in {file}")
    return 1 if failed else 0


def points_of(files: Sequence[Path], parts: Parts, aim: Aim, options: MetricOptions) -> dict[str, Any]:
    """The operating points from stored validation cases.

    Args:
        files: of :meth:`rarevox.pipeline.evaluation.operating.candidates.Candidates.save`.
        parts: what they are chosen for.
        aim: what they are for.
        options: the conventions of the figures.

    Returns:
        ``chosen`` (structure → point, as in a configuration), ``structures`` (structure → the figures of
        :func:`rarevox.pipeline.evaluation.operating.choose.choice`), and what was tried.
    """
    names = list(parts.structures)
    tried = {"thresholds": list(THRESHOLDS), "confidences": _confidences(parts)}
    stated = {"aim": aim.name, "false_lesions": aim.false_lesions, "dice_cost": aim.dice_cost, "tried": tried}
    if len(names) > 1:
        chosen, told = _together(files, parts, aim, options)
        if not _worse(files, parts, {}, chosen, "", options):
            return stated | {"chosen": chosen, "structures": told}
    chosen, told = {}, {}
    for name in names:
        one = _chosen_beside(files, chosen, name, parts, aim, options)
        if one["taken"]:
            trial = chosen | {name: _point(one, aim)}
            worse = _worse(files, parts, chosen, trial, name, options)
            if worse:
                one |= {"taken": False, "reason": f"with it the mean Dice of {', '.join(worse)} falls"}
            else:
                chosen = trial
        told[name] = one
    return stated | {"chosen": chosen, "structures": told}


def _together(
    files: Sequence[Path], parts: Parts, aim: Aim, options: MetricOptions
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The points of all structures, each chosen beside those of the others, in turn until none moves or ``ROUNDS``."""
    points: dict[str, dict[str, Any]] = {}
    told: dict[str, Any] = {}
    for _ in range(ROUNDS):
        before = dict(points)
        for name in parts.structures:
            beside = {other: point for other, point in points.items() if other != name}
            told[name] = _chosen_beside(files, beside, name, parts, aim, options)
            points = beside | ({name: _point(told[name], aim)} if told[name]["taken"] else {})
        if points == before:
            break
    return points, told


def _chosen_beside(
    files: Sequence[Path],
    points: Mapping[str, Any],
    name: str,
    parts: Parts,
    aim: Aim,
    options: MetricOptions,
) -> dict[str, Any]:
    """The choice of one structure, the others having the points given."""
    number, decision = list(parts.structures).index(name) + 1, parts.decision(points)
    tried = THRESHOLDS, _confidences(parts)
    tables = [
        case_table(StoredCase.load(file), decision, number, parts.structures[name], *tried, options) for file in files
    ]
    return choice(tables, aim, options)


def _confidences(parts: Parts) -> list[float]:
    """Those that are tried; a nested region, whose component may hold another region's, has none."""
    return list(CONFIDENCES[:1] if parts.nested else CONFIDENCES)


def _point(one: Mapping[str, Any], aim: Aim) -> dict[str, Any]:
    """A choice as it stands in a configuration."""
    point: dict[str, Any] = {"threshold": one["threshold"]}
    point |= {"confidence": one["confidence"]} if one["confidence"] else {}
    return point | {"aim": aim.name} | ({"false_lesions": aim.false_lesions} if aim.name == "recall" else {})


def _worse(
    files: Sequence[Path],
    parts: Parts,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    name: str,
    options: MetricOptions,
) -> list[str]:
    """The other structures whose mean Dice falls from one choice of points to another."""
    others = parts.without(name)
    if not others:
        return []
    options, values = replace(options, lesions=False), parts.label_values
    decisions = [parts.decision(points) for points in (before, after)]
    dice: dict[str, list[list[float]]] = {other: [[], []] for other in others}
    for file in files:
        case = StoredCase.load(file)
        for which, decision in enumerate(decisions):
            labels = case.labels(decision, values)
            for row in case_rows(case.name, labels, case.reference, case.spacing_mm, others, options=options):
                dice[row["structure"]][which].append(row["dice"])
    means = {other: [_mean(one) for one in pair] for other, pair in dice.items()}
    return [other for other, (first, second) in means.items() if second < first - 1e-9]


def _gather(fold: Fold, nested: bool, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The candidates of each case on the disk, so that memory holds one at a time; and why others failed."""
    files, failed = [], {}
    items, classes = as_items(fold.cases), len(fold.segmenter.config["label_values"])
    with progress_bar() as bar:
        task = bar.add_task("segmenting", total=len(items))
        for number, found in enumerate(fold.segmenter(items, lambda _: Candidates(classes, nested=nested))):
            try:
                if found.labels is None:
                    raise ValueError(found.reason)
                reference, spacing_mm = read_reference(found.item["reference"])
                file = folder / f"{fold.number}_{number}.npz"
                found.watch.save(file, found.case, reference, spacing_mm, str(found.item.get("subject") or ""))
                files.append(file)
            except ValueError as error:
                failed[found.case] = reason_of(error)
            bar.advance(task)
    return files, failed


def _store(run: Path, points: Mapping[str, Any]) -> None:
    """The points in every configuration of the run."""
    with keeping_sums(run) as texts:
        for stage in STAGES:
            file = f"configs/{stage}.yaml"
            config = brought_up(read_yaml(run / file), run)
            texts[file] = write_yaml(config | {"operating_points": {n: dict(point) for n, point in points.items()}})


def _print(result: Mapping[str, Any], n_cases: int) -> None:
    out, aim = Console(soft_wrap=True), result["aim"]
    out.print(f"{_WORDS[aim]} over {counted(n_cases, 'validation case')} at a threshold of 0.5 and as chosen:")
    for name, one in result["structures"].items():
        if "with" not in one:
            out.print(f"  {name}: {one['reason']}")
            continue
        sure = f", confidence {one['confidence']:g}" if one["confidence"] else ""
        verdict = "taken" if one["taken"] else f"not taken, {one['reason']}"
        out.print(f"  {name}: {_said(one['without'])} to {_said(one['with'])} at {one['threshold']:g}{sure}: {verdict}")
        if one["taken"] and one["threshold"] in (THRESHOLDS[0], THRESHOLDS[-1]):
            end, marks = ("lowest", "little") if one["threshold"] == THRESHOLDS[0] else ("highest", "much")
            out.print(
                f"    the {end} threshold tried is the best: the network marks far too {marks}; better train longer"
            )
        before, after = one["without"], one["with"]
        volumes = f"volume {figure(before['volume_ml'], 2)} to {figure(after['volume_ml'], 2)} ml a case"
        volumes += f" (references {figure(after['reference_ml'], 2)} ml)"
        if aim != "dice":
            volumes = f"Dice {figure(before['dice'])} to {figure(after['dice'])}, {volumes}"
        out.print(f"    with it {volumes}")
        times = after["volume_ml"] / after["reference_ml"] if after["reference_ml"] else 0.0
        if aim != "dice" and one["taken"] and times > MUCH:
            out.say(
                "    [yellow]that marks {:.0f} times what is there[/], and finds lesions so with few false ones: "
                "look at the Dice, and train longer",
                times,
            )
        crossed = one["cross_validated"]
        if crossed is not None:
            gain = f", gain {_said(crossed['gain'])}" if "gain" in crossed else ""
            over = aim == "recall" and crossed["false_per_scan"] > result["false_lesions"]
            limit = f", more than the {result['false_lesions']:g} asked for" if over else ""
            out.print(f"    chosen on the other subjects' cases each time: {_said(crossed)}{gain}{limit}")
    out.print(
        f"chosen on the same {counted(n_cases, 'case')} that it is told of: expect of new ones what holds where the "
        "choice was made on others"
    )


def _said(one: Mapping[str, Any]) -> str:
    false = f" at {figure(one['false_per_scan'], 2)} false a scan" if "false_per_scan" in one else ""
    return f"{interval_text(one['mean'], one['ci95'])}{false}"


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan
