"""Several annotators' label maps of the same cases: how well they agree, and the model among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.data.formats import is_volume
from rarevox.pipeline.data.scans import unusable
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.in_parallel import in_parallel
from rarevox.pipeline.evaluation.label_maps import found_structures, known_values
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures, foreground, mean_structures
from rarevox.pipeline.evaluation.score_pairs import (
    MATCHING,
    Pairs,
    by_case,
    declared_structures,
    is_agreement,
    label_maps,
    passed_over,
)
from rarevox.pipeline.files import claim_folder, entries_of, finite, write_json, write_text
from rarevox.pipeline.review.agreement_report import LISTED, print_agreement, write_agreement
from rarevox.pipeline.review.agreement_rows import RELATIONS, CaseAgreement, agree_case
from rarevox.pipeline.review.agreement_summary import (
    annotator_summary,
    flagged,
    matrix,
    model_summary,
    pair_summary,
)
from rarevox.pipeline.review.annotators import find_annotators, find_cases, holds_maps
from rarevox.pipeline.review.consensus import MARGIN
from rarevox.pipeline.words import counted, csv_text

FLAG_BELOW = 0.75
FILES = ("agreement.json", "agreement.csv", "agreement.html", "consensus")
_CSV_LEFT_OUT = ("tp", "fp", "fn", "precision", "recall", "volume_error_ml", "false_positive_ml")


def agreement(
    folders: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    model: str | Path | None = None,
    structures: Structures | None = None,
    options: MetricOptions | None = None,
    flag_below: float = FLAG_BELOW,
    resample: bool = False,
    ignore_unknown: bool = False,
    workers: int = 2,
) -> int:
    """Compare annotators, print the tables and, with ``output``, write results and consensus maps.

    Args:
        folders: the label maps of one annotator each, or one folder that holds a folder for each annotator.
        output: a folder for ``agreement.json``, ``.csv``, ``.html`` and ``consensus/CASE.nii.gz``; None writes nothing.
        model: predictions for the same cases.
        structures: name → value or values; None takes a ``dataset.json`` beside the maps, else the values found.
        options: the conventions; ``empty`` is ``one`` or ``nan``, and lesions are not counted.
        flag_below: cases where two annotators' Dice of a structure is lower are listed.
        resample: bring maps on another grid onto that of most annotators instead of leaving them out.
        ignore_unknown: take label values that no structure has as background.
        workers: cases in flight at once.

    Returns:
        0, or 1 if an annotator's or the model's map is missing or cannot be used, or an entry of the folders cannot;
        they are listed, the rest is done.

    Raises:
        RequestError: fewer than two annotators, no case that two of them have, or ``output`` holds something else.
    """
    options = options or MetricOptions(lesions=False)
    annotators = find_annotators(folders)
    found = find_cases(annotators)
    predictions, beside = _predictions(model)
    named, source = _structures(structures, annotators, found.cases, predictions, workers)
    if not foreground(named, options):
        raise RequestError("there is no structure to compare: no label value but the background was declared or found")
    if output is not None:
        claim_folder(output, lambda folder: entries_of(folder) <= set(FILES), "an agreement")
    work = partial(
        agree_case,
        annotators=list(annotators),
        structures=named,
        options=options,
        with_model=model is not None,
        known=None if ignore_unknown else known_values(named),
        resample=resample,
        consensus_folder=Path(output) / "consensus" if output is not None else None,
        doubled=found.doubled,
    )
    done = _compared(work, found.cases, predictions, workers)
    result = summary_of(done, list(annotators), named, options, flag_below, model)
    result["conventions"] |= {
        "structures_from": source,
        "other_grids": "nearest neighbour" if resample else "left out",
        "unknown_labels": "taken as background" if ignore_unknown else "the map is left out",
    }
    result["left"] = [*_beside(folders), *found.left, *beside]
    result["unmatched_predictions"] = sorted(set(predictions) - set(found.cases))
    print_agreement(result)
    _tell(result)
    if output is not None:
        _write(Path(output), result)
        console.print(f"{', '.join(FILES)} are in {output}")
    return int(bool(result["missing"] or result["model_failed"] or result["left"]))


def _predictions(model: str | Path | None) -> tuple[dict[str, Path], list[str]]:
    """The model's maps by case, and a sentence for each entry of its folder that cannot be used.

    Raises:
        RequestError: no such folder.
    """
    if model is None:
        return {}, []
    folder = Path(model)
    if not folder.is_dir():
        raise RequestError(f"--model {model} is not a folder; give the folder of the model's label maps")
    predictions, claimed = by_case(label_maps(folder, deep=True), folder)
    return predictions, [*(f"model: {reason}" for reason in claimed.values()), *passed_over(folder)]


def _compared(
    work: Callable[[Any], CaseAgreement],
    cases: Mapping[str, Mapping[str, Path]],
    predictions: Mapping[str, Path],
    workers: int,
) -> list[CaseAgreement]:
    """What comes of every case.

    Raises:
        RequestError: of none has any pair of annotators usable maps.
    """
    items = [(case, files, predictions.get(case)) for case, files in cases.items()]
    done = in_parallel(work, items, workers, "comparing")
    if not any(one.rows for one in done):
        reasons = [f"{one.case}, {name}: {why}" for one in done for name, why in one.missing.items()]
        raise RequestError(f"no case has usable maps of two annotators; {reasons[0]}")
    return done


def summary_of(
    done: Sequence[CaseAgreement],
    annotators: Sequence[str],
    structures: Structures,
    options: MetricOptions,
    flag_below: float,
    model: str | Path | None = None,
) -> dict[str, Any]:
    """The content of ``agreement.json``; see ``docs/review.md``."""
    rows = [row for one in done for row in one.rows]
    performance = [row for one in done for row in one.performance]
    names = list(foreground(structures, options))
    return {
        "annotators": [annotator_summary(name, rows, performance, structures, options) for name in annotators],
        "model": str(model) if model is not None else None,
        "model_results": model_summary(rows, annotators, structures, options) if model is not None else None,
        "n_cases": sum(bool(one.rows) for one in done),
        "structures": pair_summary(rows, structures, options, flag_below),
        "matrix": matrix(rows, annotators, mean_structures(structures, options)),
        "matrices": {name: matrix(rows, annotators, [name]) for name in names},
        "flag_below": flag_below,
        "flagged": flagged(rows, flag_below),
        "missing": [
            {"case": one.case, "annotator": name, "reason": reason, "left_out": not one.rows}
            for one in done
            for name, reason in one.missing.items()
        ],
        "model_failed": [
            {"case": one.case, "reason": one.model_reason} for one in done if one.rows and one.model_reason
        ],
        "cases": rows,
        "performance": performance,
        "conventions": _conventions(structures, options, flag_below),
        "versions": versions(),
    }


def _structures(
    given: Structures | None,
    annotators: Mapping[str, Path],
    cases: Mapping[str, Mapping[str, Path]],
    predictions: Mapping[str, Path],
    workers: int,
) -> tuple[Structures, str]:
    """The structures and where they are from."""
    if given:
        return given, "given"
    for folder in annotators.values():
        declared = declared_structures(folder)
        if declared is not None:
            return declared, "dataset.json"
    paths = [path for files in cases.values() for path in files.values()]
    paths += [path for case, path in predictions.items() if case in cases]
    pairs = Pairs({str(path): (None, path) for path in paths}, [])
    return found_structures(pairs, workers), "the values found"


def _beside(folders: Sequence[str | Path]) -> list[str]:
    """What lies beside the annotators' folders in the one that holds them, a sentence each."""
    if len(folders) > 1:
        return []
    told = []
    for entry in sorted(Path(folders[0]).iterdir()):
        fault = unusable(entry)
        if entry.name.startswith("."):
            continue
        if fault:
            told.append(f"{entry} {fault}")
        elif entry.is_dir() and not is_agreement(entry) and not holds_maps(entry):
            told.append(f"{entry} holds no label maps and is taken for no annotator")
        elif is_volume(entry) and not entry.is_dir():
            told.append(f"{entry} lies beside the annotators' folders and is nobody's")
    return told


def _tell(result: Mapping[str, Any]) -> None:
    """What is missing and what is flagged, on standard error."""
    for one in result["missing"]:
        left = "; the case is left out" if one["left_out"] else ""
        console.say("[red]no map[/red] {}, {}: {}{}", one["case"], one["annotator"], one["reason"], left)
    for sentence in result["left"]:
        console.say("[yellow]passed over[/yellow] {}", sentence)
    for one in result["model_failed"]:
        console.say("[red]failed[/red] {}, model: {}", one["case"], one["reason"])
    for one in result["flagged"][:LISTED]:
        console.say(
            "[yellow]below {:g}[/yellow] {}, {}: Dice {:.3f} of {} and {}",
            result["flag_below"],
            *(one[key] for key in ("case", "structure", "dice", "first", "second")),
        )
    if len(result["flagged"]) > LISTED:
        console.say("[yellow]and {} more[/yellow] (--output lists them)", len(result["flagged"]) - LISTED)
    if result["unmatched_predictions"]:
        unused = counted(len(result["unmatched_predictions"]), "prediction")
        console.print(f"{unused} without an annotated case: not used")
    if len(result["annotators"]) == 2:
        console.print("with two annotators the consensus rests on their prior alone; look at the pairs instead")


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    write_json(folder / "agreement.json", result)
    rows = [{key: value for key, value in row.items() if key not in _CSV_LEFT_OUT} for row in finite(result["cases"])]
    names = {"volume_ml": "first_ml", "reference_ml": "second_ml"}
    columns = [key for key in rows[0] if key not in ("status", "reason")] + ["status", "reason"]
    renamed = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    write_text(folder / "agreement.csv", csv_text([names.get(column, column) for column in columns], renamed))
    write_agreement(folder / "agreement.html", result)


def _conventions(structures: Structures, options: MetricOptions, flag_below: float) -> dict[str, Any]:
    empty = "left out and counted" if options.empty == "nan" else "1"
    return {
        "matching": MATCHING,
        "structure_values": {name: list(values) for name, values in foreground(structures, options).items()},
        "mean_over": mean_structures(structures, options),
        "empty": options.empty,
        "empty_rule": f"overlap is {empty} where neither map has the structure, 0 where only one has it",
        "surface": options.surface,
        "tolerances_mm": list(options.tolerances_mm),
        "relations": RELATIONS,
        "grid": "that of most annotators of a case; of equally many that of the first",
        "consensus": "STAPLE for each label value (SimpleITK), 0.5 or more, of several values the likeliest, of equal "
        f"ones the lowest; on the box of all annotators' voxels and {MARGIN} voxel around it",
        "flagged": f"Dice of any two annotators below {flag_below:g}",
        "intervals": f"95 %, percentile bootstrap over cases, {options.resamples} resamples, seed {options.seed}",
        "beside": "model and annotator against the consensus of the other annotators, model - annotator",
        "failed_predictions": "count as Dice 0",
    }
