"""The evaluation stage: whole held-out volumes on their own grid, figures per structure, a report to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import (
    require_run,
    target_name,
    version,
)
from rarevox.pipeline.console import Console, console, progress_bar
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.missing import optional_channels, placed, told_missing, without_channels
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.evaluation.beginning import tell_beginning, told_if_seen
from rarevox.pipeline.evaluation.calibration.measure import Calibration
from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.added import DETECTIONS_FILE, write_detections
from rarevox.pipeline.evaluation.operating.curves import Curves
from rarevox.pipeline.evaluation.operating.table import CURVES_FILE, write_curves
from rarevox.pipeline.evaluation.own_figures import name_of, update_bundle
from rarevox.pipeline.evaluation.report.curves_chart import probability_lines
from rarevox.pipeline.evaluation.report.results_table import print_results
from rarevox.pipeline.evaluation.report.run import write_run_report
from rarevox.pipeline.evaluation.run_and_dataset import (
    as_items,
    require_validation,
    same_structures,
    tell_correction,
    temperature_of,
    with_ignored,
)
from rarevox.pipeline.evaluation.scorer import CaseScorer
from rarevox.pipeline.evaluation.track import track_evaluation
from rarevox.pipeline.files import claim_folder, clear_parts
from rarevox.pipeline.gates import failed_gates, read_gates
from rarevox.pipeline.inference.calls.trained import tell_unmoved
from rarevox.pipeline.inference.decided import require_known, threshold_settings
from rarevox.pipeline.inference.ensemble import members_of, segmenter_of
from rarevox.pipeline.inference.members import with_members
from rarevox.pipeline.inference.saving import save_labels
from rarevox.pipeline.inference.segment import Segmentation, Segmenter
from rarevox.pipeline.inference.watch import together
from rarevox.pipeline.locks import held
from rarevox.pipeline.trust.gate import run_config
from rarevox.pipeline.words import listed
from rarevox.transforms.reading.stand_ins import MISSING

HELD_OUT = ("test", "validation")
"""Sections whose figures are read as those of cases that a run has not seen."""
LEARNT = "the run learnt from this case"


def evaluate(
    run: str | Path,
    dataset: str | Path,
    *,
    section: str = "test",
    output: str | Path | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
    others: Sequence[str | Path] = (),
    thresholds: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    trust: bool = False,
) -> int:
    """Score a run on a section of a prepared dataset.

    Args:
        run: the run folder.
        dataset: folder that ``rarevox prepare`` wrote.
        section: test, validation, train or training.
        output: gets ``metrics.json``, ``cases.csv``, ``curves.csv``, ``detections.json``, ``report.html`` and
            ``predictions/``; the default is ``RUN/evaluation/SECTION``, of an ensemble
            ``RUN/evaluation/SECTION_ensemble``, and with settings that may change labels ``SECTION_other_settings``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's evaluation configuration.
        others: further runs, which form an ensemble with ``run``; see :mod:`rarevox.pipeline.inference.ensemble`. The
            fold, the conventions, gates, operating points and post-processing are ``run``'s.
        thresholds: structure → probability above which a voxel is it, in place of the run's; see
            :mod:`rarevox.transforms.decision`.
        without: names of channels that are left out, as if no scan had them; for runs trained with channel dropout.
        trust: take the runs' configurations whatever they build; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        Exit status: 0, or 1 where some cases failed (they count as failures in every mean) or a gate was not passed.

    Raises:
        RequestError: no run, no dataset, an empty section, other structures than the run's, a gate for none of them.
    """
    given, members = Path(run), with_members([run])
    run = require_run(members[0], "evaluate")
    home = run if members == [given] else given  # of several members, the folder that names them
    others = [*members[1:], *with_members(others)]
    data = Dataset.load(dataset)
    if thresholds:
        require_known(thresholds, run_config(run, "evaluate", trust=trust))
    settings = [*settings, *threshold_settings(thresholds or {})]
    how: dict[str, Any] = {"device": device, "settings": settings, "uncorrected": not data.n4, "trust": trust}
    segmenter = segmenter_of(run, others, "evaluate", **how)
    tell_unmoved([one.run for one in members_of(segmenter)], settings)
    without = _left_out(segmenter, data, run, without)
    tell_correction(segmenter, data)
    gates = read_gates(segmenter.config["gates"], data.scored)
    if section == "validation":
        require_validation(run, segmenter.config)
    cases = data.section(section, fold=segmenter.config["fold"])
    runs = [one.run for one in members_of(segmenter)]
    seen = told_if_seen(runs, given, data, section, cases) if section in HELD_OUT else []
    if not cases:
        raise RequestError(
            f"section {section!r} of {data.path} is empty; choose another --section or prepare with --holdout"
        )
    for member in members_of(segmenter):  # refused before anything is told or made
        without_channels([], without, member.config)
    name = name_of(run, data, segmenter.config["fold"], section, others, without, settings)
    with held(
        claim_folder(output or home / "evaluation" / name, holds=_holds_evaluation, what="an evaluation")
    ) as folder:
        own = output is None and name == section and not seen
        if output is None and name != section:
            console.say("into {}: not the run's own figures; its model card and its trackers stay as they are", folder)
        return _evaluated(run, data, segmenter, gates, cases, folder, section, others, without, seen, own=own)


def _left_out(segmenter: Segmenter, data: Dataset, run: Path, without: Sequence[str]) -> list[str]:
    """The channels that are left out: those asked for, and those that the dataset lacks and every member may miss."""
    free = [set(optional_channels(member.config)) for member in members_of(segmenter)]
    lacking = same_structures(segmenter.config, data, run, optional=list(set.intersection(*free)))
    if lacking:
        console.say("[yellow]without {}[/yellow]: {} has no such channel", listed(lacking), data.name)
    return [*without, *(name for name in lacking if name not in without)]


def _evaluated(
    run: Path,
    data: Dataset,
    segmenter: Segmenter,
    gates: Mapping[str, Any],
    cases: Sequence[dict[str, Any]],
    folder: Path,
    section: str,
    others: Sequence[str | Path],
    without: Sequence[str],
    learnt: Sequence[str],
    *,
    own: bool,
) -> int:
    """:func:`evaluate` into a folder that is held; ``own`` figures are those of the run by itself, as it stands."""
    tell_beginning(folder, segmenter.config, temperature_of(segmenter))
    clear_parts(folder, folder / "predictions")
    write_detections(folder, None)  # an earlier evaluation's must not stand beside this one's figures
    options = with_ignored(build(segmenter.config, "metric_options"), data)
    background = {name: value for name, value in data.labels.items() if value == 0 and options.include_background}
    scorer = CaseScorer({**background, **data.scored}, folder, options=options, gates=gates, subjects=data.subjects)
    calibration, curves = _counters(segmenter, data, options)
    counters = [one for one in (calibration, curves) if one is not None]
    watch = together([one.watch for one in counters])
    items = as_items(cases)
    if len(data.channels) < len(segmenter.config["channels"]):
        items = placed(items, list(data.channels), segmenter.config["channels"])
    for member in members_of(segmenter):
        left_out = without_channels(items, without, member.config)
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(cases))
        for case, item, found in zip(cases, items, segmenter(left_out, watch), strict=True):
            if score_case(scorer, found, case, folder, LEARNT if found.case in learnt else "", missing=without):
                for counter, seen in zip(counters, found.watch.watches if counters else (), strict=True):
                    counter.add(seen)
            elif curves is not None:
                curves.miss(item)
            bar.advance(task)
    result = scorer.result()
    result |= {
        name: counter.result()
        for name, counter in (("calibration", calibration), ("curves", curves))
        if counter is not None
    }
    context = _context(run, segmenter, data, section) | ({MISSING: list(without)} if without else {})
    context |= {"learnt_from": list(learnt)} if learnt else {}
    if others:
        context["ensemble"] = [str(Path(other).resolve()) for other in (run, *others)]
    write_results(folder, result, extra={"context": context})
    write_curves(folder, result.get("curves"))
    write_detections(folder, curves.lesions() if curves is not None else None)
    write_run_report(folder, result, cases, run, context)
    if own and section == "test":
        update_bundle(run, data, result)
    if own:
        track_evaluation(run, folder.name, result)
    print_results(result)
    for line in probability_lines(result):
        Console(soft_wrap=True).print(line)
    console.print(f"metrics.json, cases.csv and report.html are in {folder}")
    return 1 if result["failed"] or failed_gates(result) else 0


def _counters(segmenter: Segmenter, data: Dataset, options: MetricOptions) -> tuple[Calibration | None, Curves | None]:
    """Who counts probabilities, as the configuration asks."""
    wanted = [bool(segmenter.config.get(key, True)) for key in ("calibration", "curves")]
    if any(wanted) and not hasattr(segmenter.inferer, "log_probabilities"):
        console.say("[yellow]no calibration, no curves[/yellow]: the run's inferer tells no probabilities")
        return None, None
    temperature = temperature_of(segmenter)
    values = segmenter.config["label_values"]
    calibration = Calibration(data.scored, values, temperature=temperature, ignored=data.ignored)
    structures = segmenter.config.get("regions") or dict(zip(segmenter.config["structures"], values[1:], strict=True))
    curves = Curves(structures, segmenter.decision, options, subjects=data.subjects)
    return calibration if wanted[0] else None, curves if wanted[1] else None


def _holds_evaluation(folder: Path) -> bool:
    """Whether the folder holds an earlier evaluation, which may be written over."""
    known = {"metrics.json", "cases.csv", CURVES_FILE, DETECTIONS_FILE, "report.html", "predictions"}
    return all(entry.name in known or entry.name.startswith(".") for entry in folder.iterdir())


def score_case(
    scorer: CaseScorer,
    found: Segmentation,
    case: dict[str, Any],
    folder: Path,
    also: str = "",
    *,
    missing: Sequence[str] = (),
) -> bool:
    """Score one case and keep its label map, with a further warning; whether it could be scored.

    ``missing`` are channels that were left out, which the row names also where the case fails.
    """
    try:
        # An earlier evaluation's label map must not stand for a case that fails in this one.
        (folder / "predictions" / f"{found.case}_seg.nii.gz").unlink(missing_ok=True)
        if found.labels is None:
            _name_missing(scorer.fail(found.case, found.reason, case["label"]), missing)
            return False
        image = case["image"]
        first = image[0] if isinstance(image, list) else image
        _, grid = save_labels(found.labels, first, found.case, folder / "predictions")
        noted = str((found.notes or {}).get("warning", "")).split("; ")
        if missing:  # left out on purpose: the rows name them
            noted = [one for one in noted if one != told_missing(missing)]
        warning = "; ".join(filter(None, (also, *noted)))
        rows = scorer.add(found.case, found.labels, case["label"], found.raw, grid=grid, warning=warning)
        _name_missing(rows, (found.notes or {}).get(MISSING, missing))
        return True
    except (OSError, ValueError) as error:
        _name_missing(scorer.fail(found.case, reason_of(error), case["label"]), missing)
        return False


def _name_missing(rows: Sequence[dict[str, Any]], channels: Sequence[str]) -> None:
    """The channels that a case lacked, in its rows."""
    for row in rows if channels else ():
        row[MISSING] = ", ".join(channels)


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
        "operating_points": config.get("operating_points") or "none",
        "post_processing": config["post_processing"] or "none",
    }
