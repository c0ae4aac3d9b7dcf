"""The study stage: a grid of trainings planned, run wherever there is room, and brought together."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.figures import figure
from rarevox.pipeline.files import claim_folder
from rarevox.pipeline.locks import held
from rarevox.pipeline.study.checks import check_cells
from rarevox.pipeline.study.collect import collect, rows_of, state_of
from rarevox.pipeline.study.estimate import clock_text, planned_seconds, seconds_left, step_seconds
from rarevox.pipeline.study.job import Job, Outcome, jobs_of
from rarevox.pipeline.study.places import Places, run_jobs
from rarevox.pipeline.study.plan import Plan, PlannedCell
from rarevox.pipeline.study.planning import Shapes, holds_study, plan_of, settle, tell_new
from rarevox.pipeline.study.rows import Row
from rarevox.pipeline.study.study_file import read_study
from rarevox.pipeline.words import listed

PATIENCE = 200.0
"""Times that is waited for another call: those of a job array begin at once, one plans, and the others wait for it."""


def study(
    file: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    places: Places | None = None,
    cells: str | None = None,
    shard: str | None = None,
    list_only: bool = False,
    extend: bool = False,
    retry: bool = False,
    keep_weights: bool = False,
    device: str = "auto",
    trust: bool = False,
) -> int:
    """Run the cells of a study that have no row yet, and collect all rows.

    Args:
        file: the study file, or the name of one in ``configs/studies``.
        dataset: folder that ``rarevox prepare`` wrote, or one that holds those that the cells name.
        output: the folder of the study, a new one or the one of an earlier call; several calls may share it at once.
        places: where the cells run; None is this machine, a process for each ``threads`` of its cores.
        cells: regular expression; only cells whose name it is found in.
        shard: ``i/n``, only every n-th cell from the i-th on; of a job array each job has its own i from 1 to n.
        list_only: tell the cells with their states, and run nothing.
        extend: take the cells that the file has now and had not before.
        retry: try cells again that failed, and train those anew that lacked cases that could not be read.
        keep_weights: leave each cell's model in its folder.
        device: auto, cpu, cuda or cuda:i, of each cell.
        trust: evaluate and resume whatever the configurations build.

    Returns:
        Exit status: 0; 1 where a chosen cell failed, now or in an earlier call, could not be written, or was trained
        without cases that could not be read; 130 or 143 when interrupted.

    Raises:
        RequestError: anything wrong with the request, before any cell runs.
    """
    described = read_study(file)
    root = Path(dataset).resolve()
    wanted, datasets = plan_of(described, root, device=device)
    chosen = selected(wanted.cells, cells, shard)
    if list_only:
        return tell_cells(Path(output), wanted, chosen)
    folder = claim_folder(output, holds=holds_study, what="a study")
    with held(folder, patience=PATIENCE):
        plan, shapes = settle(folder, wanted, described.text(), datasets, extend=extend, trust=trust)
    tell_new(described, plan)
    places = places or Places()
    options: dict[str, Any] = {"last": plan.last, "section": "test" if plan.test else "", "structures": plan.structures}
    options |= {"device": plan.device, "threads": plan.threads}
    options |= {"keep_weights": keep_weights, "trust": trust, "retry": retry}
    jobs = jobs_of(folder, root, unfinished(folder, plan, chosen, retry=retry), **options)
    if jobs:
        tell_time(folder, plan, jobs, lambda: shapes or shapes_of(plan, jobs, datasets, trust=trust), places)
    status = run_and_collect(folder, plan, chosen, jobs, places)
    if jobs and status < 128:
        try:
            tell_report(folder)
        except OSError as error:  # the rows are there
            console.say("[yellow]no report[/yellow]: {}; rarevox study --report {} writes it", _why(error), folder)
            return status or 1
    return status


def tell_report(folder: str | Path) -> int:
    """Write the report of a study as it is now, which others may go on with, and say where it is.

    Raises:
        RequestError: no study.
    """
    from rarevox.pipeline.study.results.report import write_report

    console.print(f"the report is {write_report(folder)}", soft_wrap=True)
    return 0


def selected(cells: Sequence[PlannedCell], pattern: str | None, shard: str | None) -> list[PlannedCell]:
    """The cells that a call is about.

    Raises:
        RequestError: no regular expression, no cell that it is found in, or not ``i/n``.

    >>> cells = [PlannedCell(name, {}, {}) for name in ("a_1", "a_2", "b_1")]
    >>> [cell.name for cell in selected(cells, "_1", "2/2")]
    ['b_1']
    """
    found = list(cells)
    if pattern is not None:
        try:
            found = [cell for cell in found if re.search(pattern, cell.name)]
        except re.error as error:
            raise RequestError(f"--cells {pattern} is no regular expression: {error}") from error
        if not found:
            raise RequestError(
                f"--cells {pattern} is found in no cell; --list shows them, the first is {cells[0].name}"
            )
    if shard is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise RequestError(f"--shard is {shard}; expected i/n with i from 1 to n, such as 2/8")
        found = found[int(match[1]) - 1 :: int(match[2])]
    return found


def unfinished(folder: Path, plan: Plan, chosen: Sequence[PlannedCell], *, retry: bool) -> list[PlannedCell]:
    """The chosen cells without a row; where they are to be tried again, those that failed or lacked cases too."""
    rows = rows_of(folder, plan)
    return [cell for cell in chosen if cell.name not in rows or (retry and not rows[cell.name].whole)]


def tell_cells(folder: Path, plan: Plan, chosen: Sequence[PlannedCell]) -> int:
    """``--list``: each cell with its state, its figures or its reason."""
    rows = rows_of(folder, plan)
    shown = Table("cell", "state", "train Dice", "test Dice", "reason")
    for cell in chosen:
        row = rows.get(cell.name)
        train = figure(row.train_dice.median) if row is not None and row.done else ""
        test = figure(row.test.mean_dice) if row is not None and row.test is not None else ""
        shown.add_row(cell.name, state_of(folder, cell.name, row), train, test, _remark(row))
    console.print(shown)
    return 0


def _remark(row: Row | None) -> str:
    """Why a cell failed, or what it lacked."""
    if row is None:
        return ""
    return f"without {listed(row.left_out)}, which could not be read" if row.left_out else row.reason


def shapes_of(plan: Plan, jobs: Sequence[Job], datasets: Mapping[str, Dataset], *, trust: bool) -> Shapes:
    """What the steps of cells depend on, by shape a cell with its configuration, of a study that had been planned."""
    root = Path(plan.dataset["folder"])
    return check_cells([job.cell for job in jobs], root, datasets, device=plan.device, trust=trust)


def tell_time(folder: Path, plan: Plan, jobs: Sequence[Job], shapes: Callable[[], Shapes], places: Places) -> None:
    """Say how many cells are to be run and how long that takes.

    Args:
        folder: of the study.
        plan: its plan.
        jobs: what is to be run.
        shapes: gives what the steps depend on; asked where no cell is done that could tell of the others.
        places: where the cells run.
    """
    cells = [job.cell for job in jobs]
    seconds = seconds_left(cells, plan.cells, rows_of(folder, plan))
    how = "by the cells that are done"
    if seconds is None:
        seconds = planned_seconds(cells, step_seconds(shapes(), plan.threads))
        how = "by steps timed here, start and evaluation not counted"
    at_once = places.at_once(plan.threads)
    where = f"{at_once} at once, {plan.threads} thread{'s' * (plan.threads > 1)} each"
    time_left = f"about {clock_text(seconds / min(at_once, len(jobs)))} {how}"
    console.print(f"{len(jobs)} of {len(plan.cells)} cells to run, {where}: {time_left}")


def run_and_collect(
    folder: Path,
    plan: Plan,
    chosen: Sequence[PlannedCell],
    jobs: Sequence[Job],
    places: Places,
    *,
    then: Callable[[Path, Plan], None] | None = None,
) -> int:
    """Run the jobs, a line each, and bring all rows together, whatever ended the running.

    Args:
        folder: of the study.
        plan: its plan.
        chosen: the cells that the call is about, of which one that failed, now or before, is told by the status.
        jobs: what is to be run.
        places: where.
        then: is done with the folder still held, once the rows are collected.

    Returns:
        Exit status, as :func:`study` says.
    """
    status, began, outcomes = 0, time.monotonic(), []
    with _terminated() as number:
        try:
            for outcome in run_jobs(jobs, places, plan.threads):
                outcomes.append(outcome)
                _tell(outcome, len(outcomes), len(jobs), time.monotonic() - began)
        except KeyboardInterrupt:
            status = 128 + (number[0] or signal.SIGINT)
    states = [outcome.state for outcome in outcomes]
    if "interrupted" in states and not status:
        status = next(int(one.reason) for one in outcomes if one.state == "interrupted")
    with held(folder, patience=PATIENCE):
        try:
            rows = collect(folder, plan)
            if then is not None:
                then(folder, plan)
        except OSError as error:
            states.append("unwritten")
            rows = list(rows_of(folder, plan).values())
            console.say("[red]not brought together[/red]: {}; every row stands in its cell's folder", _why(error))
            console.print("free space or correct the permission, and the same command goes on")
    done = sum(row.done for row in rows)
    waiting = len(plan.cells) - len(rows)
    names = {cell.name for cell in chosen}
    for row in rows:
        if row.left_out and row.cell in names:
            console.say(
                "[yellow]{} is without {}[/yellow], which could not be read: mend them, and --retry trains it anew",
                row.cell,
                listed(row.left_out),
            )
    console.print(f"{done} of {len(plan.cells)} cells done, {len(rows) - done} failed, {waiting} waiting; in {folder}")
    if status:
        console.print("interrupted; the same command goes on")
    faulty = any(row.cell in names and not row.whole for row in rows)
    return status or int(faulty or bool({"failed", "unwritten"} & set(states)))


def _tell(outcome: Outcome, number: int, count: int, seconds: float) -> None:
    """A line for a cell."""
    left = clock_text(seconds / number * (count - number)) if number < count else ""
    left = f", left {left}" if left else ""
    if outcome.state == "done":
        figures = [f"{what} {figure(value)}" for what, value in _dice(outcome) if value == value]
        dice = f"Dice {', '.join(figures)}; " if figures else ""
        console.print(f"{number}/{count} {outcome.cell}: {dice}{outcome.seconds:.0f} s{left}")
    elif outcome.state == "failed":
        console.say("{}/{} {}: [red]failed[/red], {}{}", number, count, outcome.cell, outcome.reason, left)
    elif outcome.state == "unwritten":
        console.say(
            "{}/{} {}: [red]not written[/red], {}; free space, and the same command goes on",
            number,
            count,
            outcome.cell,
            outcome.reason,
        )
    elif outcome.state == "elsewhere":
        console.print(f"{number}/{count} {outcome.cell}: another call is at it")


def _why(error: OSError) -> str:
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def _dice(outcome: Outcome) -> tuple[tuple[str, float], ...]:
    return ("of batches", outcome.train_dice), ("of scans", outcome.test_dice)


@contextmanager
def _terminated() -> Iterator[list[int]]:
    """SIGTERM ends the running as Ctrl-C does; the list then holds its number."""
    number = [0]
    if threading.current_thread() is not threading.main_thread():
        yield number
        return

    def end(received: int, _: object) -> None:
        number[0] = received
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield number
    finally:
        signal.signal(signal.SIGTERM, before)
