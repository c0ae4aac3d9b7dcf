"""The report of a study: one page, its figures as SVG and PDF, its tables as CSV and LaTeX, its verdicts as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.filebasedimages import ImageFileError

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import finite, read_json, write_json, write_text
from rarevox.pipeline.study.job import CELLS
from rarevox.pipeline.study.plan import Plan, read_plan
from rarevox.pipeline.study.results.claims import verdicts
from rarevox.pipeline.study.results.detection import SCORED, with_detection
from rarevox.pipeline.study.results.figures import draw_all
from rarevox.pipeline.study.results.outcomes import Outcome, Results, number, results_of
from rarevox.pipeline.study.results.ranking import Ranking, blocks_of, ranking, robustness
from rarevox.pipeline.study.results.study_page import write_study_page
from rarevox.pipeline.study.results.tables import (
    PaperTable,
    dice_tables,
    heldout_table,
    latex_table,
    share_rows,
    table_rows,
)
from rarevox.pipeline.study.results.verdict import mean
from rarevox.pipeline.study.rows import CELL_FILE
from rarevox.pipeline.study.summary import constant_dice, falling
from rarevox.pipeline.training.record.batch_record import read_record
from rarevox.pipeline.words import csv_text

REPORT, PAGE = "report", "study.html"


def write_report(study: str | Path) -> Path:
    """Write ``STUDY/report/``, whatever has come of the study so far.

    ``study.html`` is one file that opens offline; ``figures/`` has each figure as SVG and PDF, ``tables/`` each table
    as CSV and LaTeX, ``verdicts.json`` what the study says of the paper's claims, with the rules.

    Args:
        study: the folder of the study: ``plan.json`` and ``cells/``.

    Returns:
        The page.

    Raises:
        RequestError: it is not a study.
    """
    study = Path(study)
    plan = read_plan(study)
    results = read_results(study, plan)
    if len(results.labels("imbalance")) > 1:
        results = with_detection(study, plan, results)
    folder = study / REPORT
    tables, heldout = dice_tables(results), heldout_table(results)
    ranks, counts, judged = ranking_of(results), counts_of(results), verdicts(results)
    write_tables(folder / "tables", results, [*tables, *([heldout] if heldout else [])], ranks)
    write_json(folder / "verdicts.json", {"verdicts": [asdict(one) for one in judged]})
    figures = draw_all(study, plan, results, ranks, counts, folder / "figures")
    return write_study_page(folder / PAGE, study, results, figures, tables, heldout, ranks, counts, judged)


def read_results(study: Path, plan: Plan) -> Results:
    """What the cells came to so far; one whose file cannot be read is a failed one.

    The rows of held-out cases are those of the evaluation where that is there: it may have found lesions too. What
    marking every voxel would have had is counted from what the training recorded where a row lacks it, as those of
    earlier versions do, and from the label maps of the held-out cases. Whether the loss still fell is in that record.
    """
    cells = []
    for planned in plan.cells:
        folder = study / CELLS / planned.name
        if (folder / CELL_FILE).is_file():
            cells.append(_cell(folder / CELL_FILE, planned.name))
            rows = _evaluated(folder / SCORED / "metrics.json", plan)
            if rows and cells[-1].get("test"):
                cells[-1]["test"] |= {"cases": rows, "constant_dice": heldout_constant(folder / SCORED, rows)}
            record = read_record(folder) if cells[-1]["state"] == "done" else None
            if record is not None:
                cells[-1] = {"constant_dice": constant_dice(record, plan.last), **cells[-1], "falling": falling(record)}
    return results_of(plan.to_json(), cells)


def heldout_constant(scored: Path, rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean Dice of marking every voxel of held-out cases: 2·r / (r + n), r of the n voxels being the structure's.

    Args:
        scored: the folder of the evaluation, whose label maps say how many voxels a case has.
        rows: of the evaluation.

    Returns:
        NaN for several structures, which no such map marks all, and where no case has its counts and its map.
    """
    found = []
    for row in rows if len({row.get("structure") for row in rows}) == 1 else ():
        wanted = number(row.get("tp")) + number(row.get("fn"))
        try:
            voxels = math.prod(nib.load(scored / "predictions" / f"{row.get('case')}_seg.nii.gz").shape)
        except (OSError, ImageFileError):
            continue
        found.append(2 * wanted / (wanted + voxels))
    return mean(found)


def _evaluated(file: Path, plan: Plan) -> list[dict[str, Any]]:
    """The rows of an evaluation that count; none where it is not there."""
    try:
        rows = read_json(file)["cases"] if file.is_file() else []
        return [row for row in rows if not plan.structures or row["structure"] in plan.structures]
    except (RequestError, KeyError, TypeError):
        return []


def _cell(file: Path, name: str) -> dict[str, Any]:
    try:
        content = read_json(file)
        if not isinstance(content, dict) or content.get("cell") != name or "state" not in content:
            raise RequestError(f"{file} is not the record of cell {name}")
        return content
    except RequestError as error:
        return {"cell": name, "state": "failed", "reason": str(error)}


def _dice(one: Outcome) -> float:
    return one.dice


def ranking_of(results: Results) -> Ranking | None:
    """The ranking of the losses by training Dice."""
    return ranking(blocks_of(results.outcomes, results.labels("loss"), _dice))


def counts_of(results: Results) -> dict[str, dict[str, tuple[int, int]]]:
    """Network → loss → (cells above half of the best of the network, cells)."""
    found = {}
    for network in results.labels("network"):
        cells = results.where(network=network)
        if any(math.isfinite(one.dice) for one in cells):
            found[network] = robustness(cells, results.labels("loss"))
    return found


def write_tables(folder: Path, results: Results, tables: Sequence[PaperTable], ranks: Ranking | None) -> None:
    """Each table as CSV, those in the paper's layout as LaTeX too; all cells; ranks and pairs."""
    for table in tables:
        _write_csv(folder / f"{table.name}.csv", table_rows(table))
        write_text(folder / f"{table.name}.tex", latex_table(table))
    _write_csv(folder / "foreground_share.csv", share_rows(results))
    _write_csv(folder / "cells.csv", [cell_row(results, one) for one in results.outcomes])
    if ranks is not None:
        pairs = [asdict(pair) for pair in ranks.pairs]
        _write_csv(folder / "pairs.csv", pairs)
        averages = zip(ranks.losses, ranks.average_ranks, strict=True)
        _write_csv(folder / "ranks.csv", [{"loss": loss, "average_rank": rank} for loss, rank in averages])


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        write_text(path, csv_text(list(rows[0]), finite(list(rows))))


def cell_row(results: Results, one: Outcome) -> dict[str, object]:
    """A cell as a row of a table: its labels, its state, its figures."""
    return {
        "cell": one.cell,
        **{role: one.label(role) for role in results.axes},
        "state": one.state,
        "dice_median": one.dice,
        "dice_q1": one.q1,
        "dice_q3": one.q3,
        "constant_dice": one.constant,
        "foreground_share": one.share,
        "effective_patch": one.patch,
        "batch_size": one.batch,
        "test_dice": one.test,
        "seconds": one.seconds,
        "reason": one.reason,
    }
