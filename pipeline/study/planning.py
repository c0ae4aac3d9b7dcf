"""The plan of a study made, or held against the one that it began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import entries_of, write_text
from rarevox.pipeline.study.cells import cells_of
from rarevox.pipeline.study.checks import check_cells, tell_single_values
from rarevox.pipeline.study.datasets import fingerprint_of, load_all, splits_of
from rarevox.pipeline.study.overlays import contents_of
from rarevox.pipeline.study.plan import PLAN_FILE, Plan, PlannedCell, read_plan, write_plan
from rarevox.pipeline.study.study_file import StudyFile

STUDY_FILE = "study.yaml"
Shapes = dict[str, tuple[PlannedCell, dict[str, Any]]]


def plan_of(study: StudyFile, root: Path, *, device: str) -> tuple[Plan, dict[str, Dataset]]:
    """The plan that a study file and a dataset make, and the datasets; nothing is checked that needs a network.

    Raises:
        RequestError: see :func:`rarevox.pipeline.study.cells.cells_of` and
            :func:`rarevox.pipeline.study.datasets.load_all`.
    """
    cells = cells_of(study)
    datasets = load_all(cells, root, study.structures, test=study.test)
    return (
        Plan(
            name=study.name,
            study=study.digest(),
            dataset={"folder": str(root), "fingerprint": fingerprint_of(datasets)},
            axes={axis: list(labels) for axis, labels in study.axes.items()},
            cells=cells,
            base=dict(study.base),
            last=study.last,
            iterations=study.base.get("iterations"),
            threads=study.threads,
            device=device,
            test=study.test,
            structures=study.structures,
            layout=dict(study.layout or {}),
            files=contents_of((cell.settings for cell in cells), datasets) | splits_of(datasets, root),
        ),
        datasets,
    )


def settle(
    folder: Path, wanted: Plan, text: str, datasets: Mapping[str, Dataset], *, extend: bool, trust: bool
) -> tuple[Plan, Shapes]:
    """The plan that a folder then has, which is held by this call: a new one is checked and written.

    Args:
        folder: of the study.
        wanted: what the file says now.
        text: the study file, complete.
        datasets: by folder.
        extend: take new cells into a study that has begun.
        trust: see :func:`rarevox.pipeline.study.checks.check_cells`.

    Returns:
        The plan, and what of it is new: by shape, a cell with its configuration.

    Raises:
        RequestError: other data, a changed study file, or a cell that cannot work.
    """
    before = read_plan(folder) if (folder / PLAN_FILE).is_file() else None
    if before is not None:
        _same_study(before, wanted, folder, extend=extend)
        known = {cell.name for cell in before.cells}
        new = [cell for cell in wanted.cells if cell.name not in known]
        same = all(getattr(before, key) == getattr(wanted, key) for key in ("layout", "dataset", "files"))
        if not new and same:
            return before, {}
    else:
        new = list(wanted.cells)
    shapes = check_cells(new, Path(wanted.dataset["folder"]), datasets, device=wanted.device, trust=trust)
    write_text(folder / STUDY_FILE, text)
    write_plan(folder, wanted)
    return wanted, shapes


def _same_study(before: Plan, now: Plan, folder: Path, *, extend: bool) -> None:
    """Refuse what would make rows of one study out of two."""
    if before.dataset["fingerprint"] != now.dataset["fingerprint"]:
        raise RequestError(
            f"{folder} was begun on {before.dataset['folder']}, and {now.dataset['folder']} holds other data; give its "
            "own dataset, or another --output"
        )
    if before.device != now.device:
        raise RequestError(
            f"{folder} was begun with --device {before.device}, and its rows are to be compared: not {now.device}"
        )
    old, new = ({cell.name: cell for cell in plan.cells} for plan in (before, now))
    gone = [name for name in old if name not in new]
    changed = [name for name in old if name in new and old[name] != new[name]]
    added = [name for name in new if name not in old]
    what = [f"{key} was {a!r} and is {b!r}" for key, a, b in _common(before, now) if a != b]
    edited = [name for name, digest in before.files.items() if now.files.get(name, digest) != digest]
    what += [f"{name} says something else" for name in edited]
    what += [f"{_cells(gone)} gone ({gone[0]} …)"] if gone else []
    what += [f"{_cells(changed)} changed ({_change(old[changed[0]], new[changed[0]])} …)"] if changed else []
    if what or (added and not extend):
        more = "give another --output" if what else "add the new cells with --extend"
        what += [f"{_cells(added)} new ({added[0]} …)"] if added else []
        raise RequestError(
            f"{folder} was begun with another study file or other options: {'; '.join(what)}; go on with the same "
            f"(a study's file is {folder / STUDY_FILE}), or {more}"
        )


def _change(before: PlannedCell, now: PlannedCell) -> str:
    """In what a cell is not as it was, by its first setting that differs.

    >>> _change(PlannedCell("fold_0", {}, {"iterations": 15}), PlannedCell("fold_0", {}, {"iterations": 20}))
    'fold_0: iterations was 15 and is 20'
    """
    old, new = ({**cell.settings, **cell.settings.get("settings", {})} for cell in (before, now))
    odd = sorted(key for key in {*old, *new} - {"settings"} if old.get(key) != new.get(key))
    if not odd:
        return before.name
    was, is_now = (repr(table[odd[0]]) if odd[0] in table else "not set" for table in (old, new))
    return f"{before.name}: {odd[0]} was {was} and is {is_now}"


def _cells(names: Sequence[str]) -> str:
    return f"{len(names)} cell{'s' * (len(names) != 1)}"


def _common(before: Plan, now: Plan) -> list[tuple[str, Any, Any]]:
    keys = ("last", "threads", "test", "structures")
    return [(key, getattr(before, key), getattr(now, key)) for key in keys]


def holds_study(folder: Path) -> bool:
    """Whether a folder holds a study, or nothing but what a call left that was ended while it planned one."""
    names = entries_of(folder)
    return PLAN_FILE in names or names <= {STUDY_FILE, "claims", "logs"}


def tell_new(study: StudyFile, plan: Plan) -> None:
    """Say what a study is."""
    tell_single_values(study)
    axes = " × ".join(f"{len(labels)} {axis}" for axis, labels in plan.axes.items())
    console.print(f"{plan.name}: {len(plan.cells)} cells, {axes}")
