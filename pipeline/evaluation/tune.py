"""Post-processing chosen on validation cases: ``rarevox tune-postprocessing RUN DATASET``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
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
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.evaluation.operating.choose import Aim
from rarevox.pipeline.evaluation.operating.rules import AIMS, WORDS, ValidationCase, choose
from rarevox.pipeline.evaluation.out_of_fold import Fold, folds_of
from rarevox.pipeline.evaluation.run_and_dataset import with_ignored
from rarevox.pipeline.figures import figure, interval_text
from rarevox.pipeline.files import write_json
from rarevox.pipeline.trust.sums import keeping_sums
from rarevox.pipeline.words import counted
from rarevox.transforms.reader import read_scan

RESULT_FILE = "post_processing.json"


def tune_post_processing(
    run: str | Path,
    dataset: str | Path,
    *,
    aim: str = "dice",
    dice_cost: float = 0.05,
    device: str = "auto",
    trust: bool = False,
) -> int:
    """Choose, for each structure of a run, the post-processing that serves an aim best over the validation cases.

    Of a folder that ``rarevox crossval`` wrote, these are all its training cases, each segmented by the run that has
    not seen it, and all runs get the rules.

    What is tried, how it is chosen and when it is taken: :mod:`rarevox.pipeline.evaluation.operating.rules`. The choice
    is written into the run's configurations (``post_processing``), replacing an earlier one, and with the figures of
    all candidates into ``RUN/evaluation/post_processing.json`` (``STUDY/post_processing.json``). The test section is
    never looked at.

    Args:
        run: the run folder, or one that ``rarevox crossval`` wrote.
        dataset: folder that ``rarevox prepare`` wrote; its validation section of the run's fold is used.
        aim: ``dice`` or ``lesion_f1``.
        dice_cost: of ``lesion_f1``: what the choice may cost of the mean Dice.
        device: auto, cpu, cuda or cuda:i.
        trust: take the run's configuration whatever it builds; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        0, or 1 where some validation cases could not be segmented; they are listed, and the rest decides.

    Raises:
        RequestError: no run, no dataset, other structures, an unknown aim, no usable validation case.
    """
    if aim not in AIMS or not dice_cost >= 0:
        raise RequestError(
            f"aim {aim!r} with {dice_cost} of Dice: expected one of {', '.join(AIMS)}, and a number of 0 or more"
        )
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
        options = replace(with_ignored(build(folds.config, "metric_options"), data), distances=False)
        # Nothing else is asked of so many trials.
        options = replace(options, lesions=aim == "lesion_f1", lesion_penalty_mm=None, panoptic=False, centreline=False)
        result = choose(paths, folds.parts, options, Aim(aim, dice_cost=float(dice_cost)))
    for one in folds.runs:
        with keeping_sums(one) as texts:
            for file in (f"configs/{stage}.yaml" for stage in ("train", "evaluate", "inference")):
                texts[file] = write_yaml(read_yaml(one / file) | {"post_processing": result["chosen"]})
    figures, made = folds.results / RESULT_FILE, folds.context(data)
    write_json(figures, result | {"n_cases": len(paths), "failed": failed, "context": made, "versions": versions()})
    _print(result, len(paths))
    wrote = f"written into {folds.configurations}" if result["chosen"] else f"none is set in {folds.configurations}"
    console.print(f"{wrote}; the figures of all candidates are in {figures}")
    return 1 if failed else 0


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
                whose = str(case.get("subject") or "")
                ValidationCase(found.case, found.labels, reference, tuple(scan.spacing_mm), whose).save(path)
                paths.append(path)
            except ValueError as error:
                failed[found.case] = reason_of(error)
            bar.advance(task)
    return paths, failed


def _print(result: Mapping[str, Any], n_cases: int) -> None:
    out, aim = Console(soft_wrap=True), result["aim"]
    cases = counted(n_cases, "validation case")
    out.print(f"mean {WORDS[aim]} over {cases}, without and with the post-processing that was chosen:")
    of_aim = result if aim == "dice" else result[aim]
    for name, before in of_aim["without"].items():
        rule, one = _said(result["chosen"].get(name, {})), result["structures"][name]
        out.print(f"  {name}: {figure(before, 4)} to {figure(of_aim['with'][name], 4)} ({rule})")
        if aim != "dice":
            out.print(f"    Dice {figure(result['without'][name], 4)} to {figure(result['with'][name], 4)}")
        if one["rule"] and not one["taken"]:
            out.print(f"    {_said(one['rule'])}, {figure(one['with'], 4)}, is not taken: {one['reason']}")
        crossed = one["cross_validated"]
        if crossed is not None and one["rule"]:
            gain = interval_text(crossed["gain"]["mean"], crossed["gain"]["ci95"])
            told = interval_text(crossed["mean"], crossed["ci95"])
            out.print(f"    chosen on the other subjects' cases each time: {told}, gain {gain}")


def _said(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in rule.items()) or "none"
