"""The evaluation stage: whole held-out volumes on their own grid, figures per structure, a report to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import CARD, METADATA, bundle_metadata, card_text, require_run, target_name, version
from rarevox.pipeline.console import Console, console, progress_bar
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.evaluation.calibration.measure import Calibration
from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.report.calibration_chart import calibration_lines
from rarevox.pipeline.evaluation.report.results_table import print_results
from rarevox.pipeline.evaluation.report.run import write_run_report
from rarevox.pipeline.evaluation.run_and_dataset import (
    as_items,
    same_structures,
    tell_correction,
    temperature_of,
    with_ignored,
)
from rarevox.pipeline.evaluation.scorer import CaseScorer
from rarevox.pipeline.evaluation.track import track_evaluation
from rarevox.pipeline.files import claim_folder, clear_parts, json_text, read_json, write_text
from rarevox.pipeline.gates import failed_gates, read_gates
from rarevox.pipeline.inference.ensemble import segmenter_of
from rarevox.pipeline.inference.saving import save_labels
from rarevox.pipeline.inference.segment import Segmentation, Segmenter
from rarevox.pipeline.locks import held
from rarevox.pipeline.trust.sums import keeping_sums


def evaluate(
    run: str | Path,
    dataset: str | Path,
    *,
    section: str = "test",
    output: str | Path | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
    others: Sequence[str | Path] = (),
    trust: bool = False,
) -> int:
    """Score a run on a section of a prepared dataset.

    Args:
        run: the run folder.
        dataset: folder that ``rarevox prepare`` wrote.
        section: test, validation, train or training.
        output: gets ``metrics.json``, ``cases.csv``, ``report.html`` and ``predictions/``; the default is
            ``RUN/evaluation/SECTION``, of an ensemble ``RUN/evaluation/SECTION_ensemble``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's evaluation configuration.
        others: further runs, which form an ensemble with ``run``; see :mod:`rarevox.pipeline.inference.ensemble`. The
            fold, the conventions, gates and post-processing are ``run``'s.
        trust: take the runs' configurations whatever they build; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        Exit status: 0, or 1 where some cases failed (they count as failures in every mean) or a gate was not passed.

    Raises:
        RequestError: no run, no dataset, an empty section, other structures than the run's, a gate for none of them.
    """
    run = require_run(run, "evaluate")
    data = Dataset.load(dataset)
    how: dict[str, Any] = {"device": device, "settings": settings, "uncorrected": not data.n4, "trust": trust}
    segmenter = segmenter_of(run, others, "evaluate", **how)
    same_structures(segmenter.config, data, run)
    tell_correction(segmenter, data)
    gates = read_gates(segmenter.config["gates"], data.scored)
    cases = data.section(section, fold=int(segmenter.config["fold"]))
    if not cases:
        raise RequestError(
            f"section {section!r} of {data.path} is empty; choose another --section or prepare with --holdout"
        )
    name = f"{section}_ensemble" if others else section
    with held(
        claim_folder(output or run / "evaluation" / name, holds=_holds_evaluation, what="an evaluation")
    ) as folder:
        return _evaluated(run, data, segmenter, gates, cases, folder, section, output, others)


def _evaluated(
    run: Path,
    data: Dataset,
    segmenter: Segmenter,
    gates: Mapping[str, Any],
    cases: Sequence[dict[str, Any]],
    folder: Path,
    section: str,
    output: str | Path | None,
    others: Sequence[str | Path],
) -> int:
    """:func:`evaluate` into a folder that is held."""
    for place in (folder, folder / "predictions"):
        clear_parts(place)
    options = with_ignored(build(segmenter.config, "metric_options"), data)
    background = {name: value for name, value in data.labels.items() if value == 0 and options.include_background}
    scorer = CaseScorer({**background, **data.scored}, folder, options=options, gates=gates)
    calibration = None
    if segmenter.config["calibration"] and not hasattr(segmenter.inferer, "log_probabilities"):
        console.say("[yellow]no calibration[/yellow]: the run's inferer tells no probabilities")
    elif segmenter.config["calibration"]:
        calibration = Calibration(
            data.scored, data.label_values, temperature=temperature_of(segmenter), ignored=data.ignored
        )
    watch = None if calibration is None else calibration.watch
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(cases))
        for case, found in zip(cases, segmenter(as_items(cases), watch), strict=True):
            if _score(scorer, found, case, folder) and calibration is not None:
                calibration.add(found.watch)
            bar.advance(task)
    result = scorer.result() | ({"calibration": calibration.result()} if calibration is not None else {})
    context = _context(run, segmenter, data, section)
    if others:
        context["ensemble"] = [str(Path(other).resolve()) for other in (run, *others)]
    write_results(folder, result, extra={"context": context})
    write_run_report(folder, result, cases, run, context)
    if section == "test" and output is None and not others:
        _update_bundle(run, data, result)
    if output is None and not others:
        track_evaluation(run, section, result)
    print_results(result)
    for line in calibration_lines(result["calibration"]) if calibration is not None else ():
        Console(soft_wrap=True).print(line)
    console.print(f"metrics.json, cases.csv and report.html are in {folder}")
    return 1 if result["failed"] or failed_gates(result) else 0


def _holds_evaluation(folder: Path) -> bool:
    """Whether the folder holds an earlier evaluation, which may be written over."""
    known = {"metrics.json", "cases.csv", "report.html", "predictions"}
    return all(entry.name in known or entry.name.startswith(".") for entry in folder.iterdir())


def _score(scorer: CaseScorer, found: Segmentation, case: dict[str, Any], folder: Path) -> bool:
    """Score one case and keep its label map; whether it could be scored."""
    try:
        # An earlier evaluation's label map must not stand for a case that fails in this one.
        (folder / "predictions" / f"{found.case}_seg.nii.gz").unlink(missing_ok=True)
        if found.labels is None:
            scorer.fail(found.case, found.reason, case["label"])
            return False
        image = case["image"]
        save_labels(found.labels, image[0] if isinstance(image, list) else image, found.case, folder / "predictions")
        scorer.add(found.case, found.labels, case["label"], found.raw)
        return True
    except (OSError, ValueError) as error:
        scorer.fail(found.case, reason_of(error), case["label"])
        return False


def _context(run: Path, segmenter: Segmenter, data: Dataset, section: str) -> dict[str, Any]:
    """What the figures were made with."""
    config = segmenter.config
    return {
        "run": str(run.resolve()),
        "network": target_name(config["network_def"]),
        "dataset": data.name,
        "section": section,
        "fingerprint": data.fingerprint,
        "device": str(segmenter.device),
        "rarevox": version("rarevox"),
        "post_processing": config["post_processing"] or "none",
    }


def _update_bundle(run: Path, data: Dataset, result: dict[str, Any]) -> None:
    """Write the held-out scores into the bundle's metadata and model card, which tell of the run's own dataset.

    What is wrong with the files that they are made from is told: the evaluation is done, and stands without them.
    """
    from rarevox.pipeline.compose import read_yaml

    try:
        source = read_json(run / METADATA).get("data_source", "")
        if data.fingerprint not in source:
            console.say("[yellow]the model card is left as it is[/yellow]: {} is not the dataset of the run", data.name)
            return
        config = read_yaml(run / "configs" / "train.yaml")
        means = {name: figures["dice"]["mean"] for name, figures in result["structures"].items()}
        scores = {f"dice_{name}": mean for name, mean in means.items() if mean is not None and np.isfinite(mean)}
        facts, card = json_text(bundle_metadata(config, data, scores)), card_text(config, data, result)
    except (RequestError, LookupError, TypeError, ValueError, AttributeError) as error:
        what = "configs/train.yaml or configs/metadata.json is not what rarevox train wrote"
        console.say("[yellow]the model card is left as it is[/yellow]: {}: {}", what, reason_of(error))
        return
    with keeping_sums(run) as texts:
        texts[METADATA] = facts
    write_text(run / CARD, card)
