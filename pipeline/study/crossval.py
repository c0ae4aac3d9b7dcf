"""The cross-validation stage: every fold trained, every training case scored once by a run that had not seen it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import compose, read_yaml, write_yaml
from rarevox.pipeline.console import Console, console
from rarevox.pipeline.cores import cores
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.entries import parse_setting
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.report.curves_chart import probability_lines
from rarevox.pipeline.evaluation.report.results_table import print_results
from rarevox.pipeline.figures import rules_text
from rarevox.pipeline.files import claim_folder, write_json
from rarevox.pipeline.gates import failed_gates
from rarevox.pipeline.inference.members import ENSEMBLE_FILE
from rarevox.pipeline.locks import held
from rarevox.pipeline.preparation.cases import named_subject
from rarevox.pipeline.study.collect import rows_of
from rarevox.pipeline.study.datasets import splits_of
from rarevox.pipeline.study.job import CELLS, jobs_of
from rarevox.pipeline.study.overlays import BUDGETS, contents_of, read_overlay
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.plan import PLAN_FILE, Plan, PlannedCell, read_plan
from rarevox.pipeline.study.planning import holds_study, settle
from rarevox.pipeline.study.pooled import pool
from rarevox.pipeline.study.study import PATIENCE, run_and_collect, selected, shapes_of, tell_time, unfinished


def crossval(
    dataset: str | Path,
    output: str | Path,
    *,
    network: str | None = None,
    loss: str | None = None,
    config_files: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    iterations: int | None = None,
    minutes: float | None = None,
    places: Places | None = None,
    shard: str | None = None,
    retry: bool = False,
    device: str = "auto",
    trust: bool = False,
) -> int:
    """Train every fold of a dataset, score every training case out of fold, pool, and leave an ensemble.

    The folds take no part in choosing the weights that they score: there is no validation while training, unless it
    is set (``validation_cases``), and the last weights are kept.

    Args:
        dataset: folder that ``rarevox prepare`` wrote.
        output: the folder; that of an earlier call goes on. It gets ``cells/fold_K`` (runs), ``metrics.json``,
            ``cases.csv`` and ``report.html`` over all training cases, and ``ensemble.json``, by which
            ``rarevox predict`` takes the folder as a run.
        network, loss, config_files, settings, iterations, minutes, device: of each fold, as
            :func:`rarevox.pipeline.training.train.train` takes them.
        places: where folds are trained; None is this machine, one after the other.
        shard: ``i/n``, only every n-th fold from the i-th on.
        retry: try folds again that failed, and train those anew that lacked cases that could not be read.
        trust: evaluate and resume whatever the configurations build.

    Returns:
        Exit status: 0; 1 where a fold or a case failed, or a gate was not passed; 130 or 143 when interrupted.

    Raises:
        RequestError: anything wrong with the request; a dataset of one fold; other options than it began with.
    """
    data = Dataset.load(dataset)
    if data.folds < 2:
        raise RequestError(f"{data.path} has one fold, whose cases are those trained on; prepare with --folds 5")
    _tell_parted_subjects(data)
    base = _base(data, network, loss, config_files, settings, {"minutes": minutes, "iterations": iterations})
    folder = claim_folder(output, holds=holds_study, what="a cross-validation")
    places = places or Places(workers=1)
    with held(folder, patience=PATIENCE):
        wanted = _plan(data, base, device, _threads(folder, places))
        what = json.dumps(wanted.base, indent=1)
        datasets = {wanted.dataset["folder"]: data}
        plan, shapes = settle(folder, wanted, what, datasets, extend=False, trust=trust)
    chosen = selected(plan.cells, None, shard)
    options: dict[str, Any] = {"section": "validation", "full": True, "keep_weights": True, "device": plan.device}
    options |= {"threads": plan.threads, "trust": trust, "retry": retry}
    jobs = jobs_of(folder, data.path.parent.resolve(), unfinished(folder, plan, chosen, retry=retry), **options)
    if jobs:
        _end_ensemble(folder)
        tell_time(folder, plan, jobs, lambda: shapes or shapes_of(plan, jobs, datasets, trust=trust), places)
    pooled: list[dict[str, Any]] = []
    status = run_and_collect(folder, plan, chosen, jobs, places, then=_pooling(data, pooled, trust=trust))
    if not pooled:
        return status
    print_results(pooled[0])
    for line in probability_lines(pooled[0]):
        Console(soft_wrap=True).print(line)
    console.print(f"metrics.json, cases.csv and report.html are in {folder}")
    console.print(f"all folds together: rarevox predict {folder} SCANS --output OUT")
    return status or int(bool(pooled[0]["failed"] or failed_gates(pooled[0])))


def _base(
    data: Dataset,
    network: str | None,
    loss: str | None,
    config_files: Sequence[str | Path],
    settings: Sequence[str],
    budget: Mapping[str, Any],
) -> dict[str, Any]:
    """What the folds have in common, as a cell's settings."""
    config = [str(Path(one).resolve()) if Path(one).suffix else str(one) for one in config_files]
    said = {"network": network, "loss": loss, "config": config, "settings": dict(map(parse_setting, settings))}
    base = read_overlay({key: value for key, value in said.items() if value}, "--set")
    if "fold" in base:
        raise RequestError("every fold is trained; leave out --set fold")
    base |= {key: value for key, value in budget.items() if value is not None}
    return base if BUDGETS & set(base) else base | _configured_budget(data, network, loss, config_files, settings)


def _configured_budget(
    data: Dataset, network: str | None, loss: str | None, config_files: Sequence[str | Path], settings: Sequence[str]
) -> dict[str, Any]:
    """The budget of a training for which no option states one: that of the files, the plan, or the templates."""
    how: dict[str, Any] = {"network": network, "loss": loss, "config_files": config_files, "settings": settings}
    config = compose("train", dataset=data, **how).config
    key = "iterations" if config["minutes"] is None else "minutes"
    try:
        return read_overlay({key: config[key]}, "the configuration")
    except RequestError as error:
        raise RequestError(f"{error}; or give --iterations or --minutes") from None


def _threads(folder: Path, places: Places) -> int:
    """Of each fold: those that it began with, else the cores shared out among as many as are trained at once.

    No more than ``OMP_NUM_THREADS`` says of a process, where it is set (of nested numbers the first).
    """
    if (folder / PLAN_FILE).is_file():
        return read_plan(folder).threads
    if places.cpus_per_cell:
        return max(1, int(places.cpus_per_cell))
    most = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    shared = max(1, cores() // (places.workers or 1))
    return min(shared, int(most)) if most.isdigit() and int(most) else shared


def _plan(data: Dataset, base: Mapping[str, Any], device: str, threads: int) -> Plan:
    """A cell for each fold."""
    folds, place = range(data.folds), str(data.path.parent.resolve())
    return Plan(
        name=f"{data.name}, {data.folds} folds",
        study=hashlib.sha256(json.dumps(base, sort_keys=True).encode()).hexdigest(),
        dataset={"folder": place, "fingerprint": data.fingerprint},
        axes={"fold": [str(fold) for fold in folds]},
        cells=tuple(PlannedCell(f"fold_{fold}", {"fold": str(fold)}, {**base, "fold": fold}) for fold in folds),
        base=dict(base),
        iterations=base.get("iterations"),
        threads=threads,
        device=device,
        files=contents_of([base], [place]) | splits_of({place: data}, place),
    )


def _tell_parted_subjects(data: Dataset) -> None:
    """Say which cases are scans of one subject, or look like it, and lie in different folds."""
    folds: dict[str, dict[int, str]] = {}
    for case in data.training:
        subject = case.get("subject") or named_subject(str(case["case"]))
        folds.setdefault(subject, {}).setdefault(case["fold"], str(case["case"]))
    for subject, cases in folds.items():
        if len(cases) > 1:
            console.say(
                "[yellow]{} lies in {} folds[/yellow] ({}): its scores are not out of fold; prepare with --subject",
                subject,
                len(cases),
                ", ".join(cases.values()),
            )


def _end_ensemble(folder: Path) -> None:
    """Until every fold is trained again there is no ensemble: ``predict`` would take half-trained weights for one."""
    file = folder / ENSEMBLE_FILE
    if file.exists():
        file.unlink()
        console.print(
            f"metrics.json and report.html in {folder} are of the folds before, and {ENSEMBLE_FILE} is gone, until all "
            "are done: the same command goes on"
        )


def _tell_chosen_before(folder: Path, members: Sequence[str]) -> None:
    """Say which folds lack what was chosen for all of them: those that were trained anew since then."""
    configs = {member: read_yaml(folder / member / "configs" / "inference.yaml") for member in members}
    for key in ("operating_points", "post_processing"):
        texts = {member: write_yaml({key: config.get(key)}) for member, config in configs.items()}
        if len(set(texts.values())) > 1:
            said = "; ".join(f"{member} {rules_text(configs[member].get(key))}" for member in members)
            console.say(
                "[yellow]the folds' {} differ[/yellow] ({}), and those of {} count in the ensemble: choose them anew",
                key.replace("_", " "),
                said,
                members[0],
            )


def _pooling(data: Dataset, pooled: list[dict[str, Any]], *, trust: bool) -> Callable[[Path, Plan], None]:
    """What is done once the rows are collected: where all folds are done, they are pooled into ``pooled``."""

    def then(folder: Path, plan: Plan) -> None:
        rows = rows_of(folder, plan)
        if all(cell.name in rows and rows[cell.name].done for cell in plan.cells):
            runs = {int(cell.settings["fold"]): f"{CELLS}/{cell.name}" for cell in plan.cells}
            pooled.append(pool(folder, runs, data, trust=trust))
            write_json(folder / ENSEMBLE_FILE, {"members": list(runs.values())})
            _tell_chosen_before(folder, list(runs.values()))

    return then
