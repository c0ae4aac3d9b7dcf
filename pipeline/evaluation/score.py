"""Label maps against label maps, no model needed: ``rarevox score PREDICTIONS REFERENCES``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.beginning import tell_replaced
from rarevox.pipeline.evaluation.in_parallel import in_parallel
from rarevox.pipeline.evaluation.label_maps import LabelMap, found_structures, known_values, on_grid, read_label_map
from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures, foreground
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.operating.cleaning import Cleaning, read_cleaning
from rarevox.pipeline.evaluation.outcome import outcome, read_declared
from rarevox.pipeline.evaluation.report.results_table import print_results
from rarevox.pipeline.evaluation.score_pairs import (
    MATCHING,
    Pairs,
    dataset_beside,
    dataset_ignored,
    dataset_structures,
    dataset_subjects,
    declared_structures,
    find_pairs,
)
from rarevox.pipeline.files import claim_folder
from rarevox.pipeline.gates import failed_gates, read_gates
from rarevox.pipeline.words import listed
from rarevox.transforms.reader import ScanError

if TYPE_CHECKING:
    from rarevox.pipeline.evaluation.report.page import CaseImages

Row = dict[str, Any]


def score(
    predictions: str | Path,
    references: str | Path,
    output: str | Path | None = None,
    *,
    structures: Structures | None = None,
    dataset: str | Path | None = None,
    options: MetricOptions | None = None,
    resample: bool = False,
    ignore_unknown: bool = False,
    gates: str | Path | None = None,
    post_processing: str | Path | None = None,
    report: bool = True,
    workers: int = 2,
) -> int:
    """Score label maps against reference label maps and print the table; with ``output``, write the result files.

    Args:
        predictions: a label map or a folder of them.
        references: likewise.
        output: a folder for ``metrics.json``, ``cases.csv`` and ``report.html``; None writes nothing.
        structures: name → value or values; None takes those of ``dataset``, else of a ``dataset.json`` beside the
            references, else the values found.
        dataset: a prepared dataset (or its ``dataset.json``), for its labels and composites, and for whose each case
            is; None takes the subjects of a ``dataset.json`` beside the references.
        options: the conventions.
        resample: bring predictions on another grid onto the reference's by nearest neighbour instead of failing them.
        ignore_unknown: take label values that no structure has as background instead of failing the case.
        gates: a YAML file with the least Dice of structures; see :func:`rarevox.pipeline.gates.read_gates`.
        post_processing: a YAML file with rules by structure, applied to the predictions; the figures without it are
            given too. See :func:`rarevox.transforms.clean.read_rules`. Of a configuration with nested ``regions`` the
            rules are for these.
        report: write ``report.html`` too.
        workers: cases in flight at once.

    Returns:
        0, or 1 if any case failed, a prediction has no reference, an entry of the folders cannot be used or a gate was
        not passed; they are listed and the rest is scored.

    Raises:
        RequestError: nothing can be scored, ``output`` holds something else, or gates or post-processing of what is no
            structure.
    """
    options, pairs = options or MetricOptions(), find_pairs(Path(predictions), Path(references))
    if output is not None:
        claim_folder(output, lambda folder: (folder / "metrics.json").is_file(), "a score")
    named, source, options = _what_to_score(structures, dataset, pairs, Path(references), options, workers)
    minima = read_gates(read_declared(gates, "gates"), foreground(named, options))
    cleaning = read_cleaning(read_declared(post_processing, "post_processing"), post_processing, named)
    subjects = _subjects(dataset, Path(references), pairs)
    how: dict[str, Any] = {"resample": resample, "ignore_unknown": ignore_unknown}
    one = partial(score_pair, structures=named, options=options, cleaning=cleaning, doubled=pairs.doubled, **how)
    found = in_parallel(one, list(pairs.matched.items()), workers, "scoring")
    rows = _owned((row for case, _ in found for row in case), subjects)
    raw = _owned((row for _, case in found for row in case), subjects) if cleaning else None
    result = outcome(rows, named, options=options, raw_rows=raw, gates=minima)
    result["conventions"] |= _conventions(cleaning, source, **how)
    result["unmatched_predictions"] = [path.relative_to(predictions).as_posix() for path in pairs.extra]
    result["left"] = list(pairs.left)
    print_results(result)
    none = all(row["status"] == "failed" for row in rows)
    if output is not None and none and (Path(output) / "metrics.json").is_file():
        console.say("no case could be scored: the earlier figures in {} stay", output)
        return 1
    if output is not None:
        tell_replaced(Path(output))
        write_results(output, result)
    if output is not None and report:
        _write_report(Path(output), result, pairs, cleaning)
    return int(bool(result["failed"] or pairs.extra or pairs.left or failed_gates(result)))


def _what_to_score(
    given: Structures | None,
    dataset: str | Path | None,
    pairs: Pairs,
    references: Path,
    options: MetricOptions,
    workers: int,
) -> tuple[Structures, str, MetricOptions]:
    """The structures, where they are from, and the conventions with the dataset's label of what nobody annotated.

    Raises:
        RequestError: there is none.
    """
    source, structures = "given" if given else "dataset.json", given
    if dataset is not None and not structures:
        source, structures = str(dataset), dataset_structures(Path(dataset))
    structures = structures or declared_structures(references)
    options = _with_ignored(options, dataset, references, structures)
    if structures is None:
        structures, source = found_structures(pairs, workers, options.ignored_value), "the values found"
        structures = ({"background": 0} if options.include_background and structures else {}) | structures
    if not foreground(structures, options):
        raise RequestError("there is no structure to score: no label value but the background was declared or found")
    return structures, source, options


def _conventions(cleaning: Cleaning | None, source: str, *, resample: bool, ignore_unknown: bool) -> dict[str, Any]:
    """What is to be said of the figures beside the conventions of the metrics."""
    nested = {"post_processing_of": "nested regions"} if cleaning is not None and cleaning.values else {}
    return nested | {
        "post_processing": {name: dict(rule) for name, rule in cleaning.named.items()} if cleaning else "none",
        "matching": MATCHING,
        "structures_from": source,
        "other_grids": "nearest neighbour" if resample else "failed",
        "unknown_labels": "taken as background" if ignore_unknown else "failed",
    }


def score_pair(
    pair: tuple[str, tuple[Path | None, Path | None]],
    *,
    structures: Structures,
    options: MetricOptions,
    resample: bool = False,
    ignore_unknown: bool = False,
    cleaning: Cleaning | None = None,
    doubled: Mapping[str, str] | None = None,
) -> tuple[list[Row], list[Row]]:
    """The rows of one case, after and before post-processing by ``cleaning``; ``doubled`` says of a case which
    several files claim to be it.

    Every fault of its files becomes ``failed`` rows with the reason, never an exception.
    """
    case, (prediction_path, reference_path) = pair
    known = None if ignore_unknown else known_values(structures)
    ignored = set() if options.ignored_value is None else {options.ignored_value}
    fault = (doubled or {}).get(case, "")
    if reference_path is None:
        failed = failed_rows(case, structures, fault, options=options)
        return failed, failed
    try:
        reference = read_label_map(reference_path, None if known is None else known | ignored)
    except ValueError as error:
        failed = failed_rows(case, structures, f"reference: {error}", options=options)
        return failed, failed
    try:
        if prediction_path is None:
            raise ScanError(fault or "there is no prediction for it")
        prediction = read_label_map(prediction_path, known)
        array = on_grid(prediction, reference, resample)
        known_as = (reference.array, reference.spacing_mm, structures)
        odd = _odd(prediction, reference)
        rows = [{**row, **odd} for row in case_rows(case, array, *known_as, options=options)]
        if cleaning is None:
            return rows, rows
        cleaned = case_rows(case, cleaning(array, _voxel_ml(reference)), *known_as, options=options)
        return [{**row, **odd} for row in cleaned], rows
    except ValueError as error:
        array, spacing = reference.array, reference.spacing_mm
        failed = failed_rows(case, structures, str(error), reference=array, spacing_mm=spacing, options=options)
        return failed, failed


def _odd(prediction: LabelMap, reference: LabelMap) -> dict[str, str]:
    """What reading found odd about the files, as a column of their own."""
    maps = {"prediction": prediction, "reference": reference}
    told = [f"{name}: {sentence}" for name, labels in maps.items() for sentence in labels.warnings]
    return {"warning": "; ".join(told)} if told else {}


def _with_ignored(
    options: MetricOptions, dataset: str | Path | None, references: Path, structures: Structures | None
) -> MetricOptions:
    """The conventions with the label of what nobody annotated, where they name none and a ``dataset.json`` does."""
    file = _dataset_file(dataset, references)
    if options.ignored_value is not None or file is None:
        return options
    ignored = dataset_ignored(file)
    return options if ignored in known_values(structures or {}) else replace(options, ignored_value=ignored)


def _dataset_file(dataset: str | Path | None, references: Path) -> Path | None:
    """The dataset that was given, else the ``dataset.json`` beside the references, if there is one."""
    return Path(dataset) if dataset is not None else dataset_beside(references)


def _subjects(dataset: str | Path | None, references: Path, pairs: Pairs) -> dict[str, str]:
    """Case → whose it is, where the dataset names subjects and has a case of that name; which it has not is told."""
    file = _dataset_file(dataset, references)
    if file is None:
        return {}
    subjects = dataset_subjects(file, {case: reference for case, (_, reference) in pairs.matched.items()})
    strangers = [case for case, subject in subjects.items() if not subject]
    if strangers and len(subjects) > 1:
        console.say(
            "[yellow]no subject[/yellow]: {} has no case called {}; in the intervals each counts as a subject of its "
            "own; call the references as the dataset calls their cases",
            file,
            listed(strangers),
        )
    return {case: subject for case, subject in subjects.items() if subject}


def _owned(rows: Iterable[Row], subjects: Mapping[str, str]) -> list[Row]:
    """The rows with the subjects of their cases, where they are known."""
    return [{**row, "subject": subjects[row["case"]]} if row["case"] in subjects else row for row in rows]


def _voxel_ml(reference: LabelMap) -> float:
    return float(np.prod(reference.spacing_mm)) / 1000.0


def _write_report(output: Path, result: Mapping[str, Any], pairs: Pairs, cleaning: Cleaning | None) -> None:
    """The report, with the best, median, worst and failing cases drawn from the label maps alone."""
    from rarevox.pipeline.evaluation.report.page import shown_cases, write_report

    shown = (_case_images(case, pairs.matched[case], cleaning) for case in shown_cases(result))
    write_report(output / "report.html", result, title="Score", cases_images=(one for one in shown if one is not None))


def _case_images(case: str, pair: tuple[Path | None, Path | None], cleaning: Cleaning | None) -> CaseImages | None:
    """The label maps of a case, without an image; None without a readable reference, which is in the failures."""
    from rarevox.pipeline.evaluation.report.page import CaseImages

    prediction_path, reference_path = pair
    if reference_path is None:
        return None
    try:
        reference = read_label_map(reference_path)
    except ValueError:
        return None
    prediction = None
    with suppress(ValueError):
        if prediction_path is not None:
            prediction = on_grid(read_label_map(prediction_path), reference, resample=True)
            prediction = cleaning(prediction, _voxel_ml(reference)) if cleaning is not None else prediction
    return CaseImages(case, None, prediction, reference.array, reference.affine)
