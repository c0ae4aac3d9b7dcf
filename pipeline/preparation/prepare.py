"""``rarevox prepare``: from a source of scans to a checked, split and described dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.data.composites import Composites, read_composites
from rarevox.pipeline.data.dataset import DATASET_FILE, Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import claim_folder, clear_parts, entries_of, read_json, write_json
from rarevox.pipeline.locks import held
from rarevox.pipeline.names import check_names, plain_name
from rarevox.pipeline.preparation.cases import Case, Source
from rarevox.pipeline.preparation.checks_page import write_checks_page
from rarevox.pipeline.preparation.content import dataset_content, rule_of
from rarevox.pipeline.preparation.examine import Examination, Treatment, examine
from rarevox.pipeline.preparation.fingerprint import CaseFacts, summarise
from rarevox.pipeline.preparation.plan_file import PLAN_FILE, is_edited_plan, make_plan, write_plan
from rarevox.pipeline.preparation.prepare_report import show_faults, show_fixes, show_plan, show_replaced, show_summary
from rarevox.pipeline.preparation.rules.choice import Choice
from rarevox.pipeline.preparation.sources.find import find_cases
from rarevox.pipeline.preparation.split import Split, SplitItem, joined_subjects, require_split_options, split_cases
from rarevox.pipeline.preparation.stated_split import follow_split, is_stated, with_split

FINGERPRINT_FILE = "fingerprint.json"
REJECTED_FILE = "rejected.json"
FIXED_FILE = "fixed.json"
PAGE_FILE = "checks.html"
FIXED_FOLDER, N4_FOLDER = "fixed", "n4"
_CACHE = "cache"  # of training, which may lie here
_FILES = {DATASET_FILE, FINGERPRINT_FILE, REJECTED_FILE, FIXED_FILE, PAGE_FILE, PLAN_FILE}
_FILES |= {FIXED_FOLDER, N4_FOLDER, _CACHE}


def prepare(
    source: Path,
    output: Path,
    *,
    channels: dict[str, str] | None = None,
    label: str | None = None,
    mask: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    structures: dict[str, int] | None = None,
    composites: Composites | None = None,
    ignore: int | None = None,
    subject: str | None = None,
    holdout: float = 0.1,
    folds: int = 5,
    seed: int = 0,
    split: Path | None = None,
    fix: bool = False,
    n4: bool = False,
    skip_faulty: bool = False,
    workers: int | None = None,
) -> int:
    """Check every case of ``source`` and write the dataset: lists, figures, faults and the page of the checks.

    Args:
        source: the folder or list of scans; see :func:`rarevox.pipeline.preparation.sources.find.find_cases` for the
            layouts.
        output: the folder to write; a new one, an empty one, or one that an earlier prepare wrote.
        channels: channel name to file pattern, for a folder per subject.
        label: the label's file pattern, for a folder per subject.
        mask: the pattern of a region-of-interest mask, recorded with each case.
        images: the folder of images, for two parallel folders.
        labels: the folder of labels, for two parallel folders.
        structures: structure name to label value; replaces what the source says. Without either, every value found
            becomes a structure called ``label_VALUE``.
        composites: structures that are unions of labels, name to values. They are added to those of the source, which
            are left out where ``structures`` replace its labels.
        ignore: the label of voxels that nobody annotated, which count in neither training nor scores; by default
            nnU-Net's label ``ignore`` where the source declares it.
        subject: a regular expression that finds the subject in a case's name, so that its cases stay together.
        holdout: the share of subjects held out as the test section.
        folds: into how many folds the others are dealt.
        seed: of the split.
        split: a file with a split to follow instead of making one; see
            :mod:`rarevox.pipeline.preparation.stated_split`.
        fix: write corrected copies into ``output/fixed`` where the correction is certain; see
            :mod:`rarevox.pipeline.preparation.corrected.corrections`.
        n4: write images with the bias field divided out into ``output/n4`` and use those.
        skip_faulty: leave cases with errors out instead of stopping.
        workers: how many cases are checked at a time; the number of processors by default, at most 4, since each
            holds a case in memory.

    Returns:
        The exit status: 0, or 1 when faulty cases were left out.

    Raises:
        RequestError: a source, option or output folder that cannot be used, or faulty cases without ``skip_faulty``
            (``rejected.json`` is written then too).
    """
    require_split_options(holdout=holdout, folds=folds, seed=seed)
    if workers is not None and workers < 1:
        raise RequestError(f"--workers is {workers}; expected 1 or more")
    named_structures = _declared(structures) if structures else None
    found = find_cases(source, channels=channels, label=label, mask=mask, images=images, labels=labels, subject=subject)
    _check_names(found, source, structures, composites)
    found = with_split(replace(found, name=plain_name(found.name)), split)
    with held(claim_folder(output, _is_prepared, "a dataset")):
        declared = named_structures or found.labels
        found = replace(found, ignored=_ignored(ignore, found, declared))
        unions = ({} if named_structures else found.composites) | (composites or {})
        if declared:
            read_composites(unions, declared, "--structure")  # refused before the cases are read
        _begin(output)
        seen = _examined(found, declared, output, fix=fix, n4=n4, workers=workers)
        kept = _usable(found, seen, output, skip_faulty=skip_faulty)
        dealing = {"holdout": holdout, "folds": folds, "seed": seed}
        content, fingerprint = _described(found, seen, kept, declared, dealing)
        content |= {"composites": read_composites(unions, declared or _discovered(kept), "--structure")}
        show_replaced(output / DATASET_FILE, fingerprint["sha256"])
        _write(output / FINGERPRINT_FILE, fingerprint)
        _write(output / DATASET_FILE, content | {"n4": n4})
        plan = _plan(output, fingerprint)
    show_summary(output, found.kind, content, fingerprint, seen)
    show_plan(plan, output, named=bool(declared))
    return 1 if seen.rejected else 0


def _begin(output: Path) -> None:
    """Clear away what a killed call left, and mark a new folder as a dataset's before any case is read.

    Corrected copies come first, the list of faults after them: of a call that was killed in between, the folder must
    still be one that the next call may write into.
    """
    clear_parts(output, *(output / FIXED_FOLDER).glob("*"), *(output / N4_FOLDER).glob("*"))
    if not (output / REJECTED_FILE).exists():
        _write(output / REJECTED_FILE, {"cases": 0, "rejected": [], "faults": []})


def _examined(
    found: Source, declared: dict[str, int] | None, output: Path, *, fix: bool, n4: bool, workers: int | None
) -> Examination:
    """All cases, read, corrected and checked; what was found is written and shown."""
    places = [(output / name).resolve() if wanted else None for name, wanted in ((FIXED_FOLDER, fix), (N4_FOLDER, n4))]
    seen = examine(found, declared, Treatment(*places), workers)
    _write_findings(output, found, _total(found, seen), seen, declared)
    show_fixes(seen.fixes)
    show_faults(seen.faults, found.root)
    return seen


def _total(found: Source, seen: Examination) -> int:
    return len({case.case for case in found.cases} | seen.rejected)


def _usable(found: Source, seen: Examination, output: Path, *, skip_faulty: bool) -> list[CaseFacts]:
    """The cases without an error, sorted by name.

    Raises:
        RequestError: there are cases with errors, which may not be left out, or no others.
    """
    total = _total(found, seen)
    if seen.rejected and not skip_faulty:
        instead = ", or leave them out with --skip-faulty" if len(seen.rejected) < total else ""
        raise RequestError(
            f"{len(seen.rejected)} of {total} cases have errors, listed above and in {output / REJECTED_FILE}; "
            f"correct them{instead}"
        )
    kept = sorted((fact for fact in seen.facts if fact.case not in seen.rejected), key=lambda fact: fact.case)
    if not kept:
        raise RequestError(f"no usable case is left of {total}; see {output / REJECTED_FILE}")
    return kept


def _described(
    found: Source,
    seen: Examination,
    kept: Sequence[CaseFacts],
    declared: dict[str, int] | None,
    dealing: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of ``dataset.json`` and ``fingerprint.json``: names, figures, split."""
    named, values = _channel_names(found, kept), declared or _discovered(kept)
    cases = _as_one_subject([seen.cases[fact.case] for fact in kept], seen.twins)
    dealt = _split(list(cases.values()), kept, **dealing)
    fingerprint = summarise(kept, named, values, found.ignored)
    header = dealing | {"folds": dealt.folds, "fingerprint": fingerprint["sha256"]}
    content = dataset_content(found, cases, named, values, dealt, header)
    content |= {"ignored": found.ignored, "channel_files": rule_of(found, len(named))}
    return content | {"fixed": sorted({fix.check for fix in seen.fixes})}, fingerprint


def _check_names(found: Source, source: Path, structures: dict[str, int] | None, composites: Composites | None) -> None:
    """Names become part of configurations and files; refused before a voxel is read."""
    listed = Path(source) / DATASET_FILE
    where = listed if listed.is_file() else source
    check_names(found.channels or (), "channel", where)
    check_names([*(structures or {}), *(composites or {})], "structure", "--structure")
    check_names([*(found.labels or {}), *found.composites], "structure", where)


def _is_prepared(folder: Path) -> bool:
    """Whether the folder holds nothing but what an earlier prepare wrote, and training's cache."""
    names = {name for name in entries_of(folder) if not is_edited_plan(name)}
    if not names <= _FILES or REJECTED_FILE not in names:
        return False
    rejected = read_json(folder / REJECTED_FILE)
    return isinstance(rejected, dict) and isinstance(rejected.get("faults"), list)


def _declared(structures: dict[str, int]) -> dict[str, int]:
    """The structures given on the command line, checked."""
    named = {name: value for name, value in structures.items() if not (name == "background" and value == 0)}
    if not named or min(named.values()) < 1 or len(set(named.values())) < len(named) or "background" in named:
        raise RequestError(
            f"--structure says {structures}; expected a name and a whole number of 1 or more for each structure, "
            "each number once (0 is the background)"
        )
    return named


def _ignored(given: int | None, source: Source, declared: dict[str, int] | None) -> int | None:
    """The label of what nobody annotated: the one given, else the source's unless it was declared a structure."""
    values = set((declared or {}).values())
    if given is not None and (given < 1 or given in values):
        raise RequestError(f"--ignore is {given}; expected a label value that is neither 0 nor a structure's")
    return given if given is not None else None if source.ignored in values else source.ignored


def _discovered(facts: Sequence[CaseFacts]) -> dict[str, int]:
    values = sorted({value for fact in facts for value in fact.structures})
    if not values:
        raise RequestError("no case holds any foreground; is it the right label? Name it with --label or --labels")
    return {f"label_{value}": value for value in values}


def _channel_names(source: Source, facts: Sequence[CaseFacts]) -> tuple[str, ...]:
    if source.channels:
        return source.channels
    count = len(facts[0].channels)
    return ("image",) if count == 1 else tuple(f"channel_{number}" for number in range(count))


def _as_one_subject(cases: Sequence[Case], twins: Iterable[tuple[str, str, float]]) -> dict[str, Case]:
    """The cases by name; copies of a scan are of one subject, in the split and wherever subjects count later."""
    subjects = {case.case: case.subject for case in cases}
    pairs = [(first, second) for first, second, _ in twins if first in subjects and second in subjects]
    joined = joined_subjects(subjects, pairs)
    return {case.case: replace(case, subject=joined[case.case]) for case in cases}


def _split(cases: Sequence[Case], facts: Sequence[CaseFacts], *, holdout: float, folds: int, seed: int) -> Split:
    """The split, with subjects kept together; or the one that is stated."""
    subjects, items = {case.case: case.subject for case in cases}, []
    for fact in facts:
        volume = sum(structure["volume_ml"] for structure in fact.structures.values())
        items.append(SplitItem(fact.case, subjects[fact.case], volume, frozenset(fact.structures)))
    if is_stated(cases):
        return follow_split(items, {case.case: case.part or "training" for case in cases}, folds=folds, seed=seed)
    return split_cases(items, holdout=holdout, folds=folds, seed=seed)


def _write_findings(
    output: Path, source: Source, total: int, seen: Examination, declared: dict[str, int] | None
) -> None:
    """Every fault and correction of every case; written also when there is none, so that no older list lingers."""
    rows = [asdict(fault) for fault in seen.faults]
    _write(output / REJECTED_FILE, {"cases": total, "rejected": sorted(seen.rejected), "faults": rows})
    if seen.fixes or (output / FIXED_FILE).exists():
        _write(output / FIXED_FILE, {"fixed": [asdict(fix) for fix in seen.fixes]})
    with _telling(output / PAGE_FILE):
        write_checks_page(output / PAGE_FILE, source.name, total, seen, root=source.root, structures=declared)


def _plan(output: Path, fingerprint: dict[str, Any]) -> list[Choice]:
    """Choose how to train and write it down."""
    data = Dataset.load(output)
    choices = make_plan(data, fingerprint)
    with _telling(output / PLAN_FILE):
        if kept := write_plan(output, data.name, choices):
            console.print(f"{PLAN_FILE} had been edited; that one is kept as {kept.name}")
    return choices


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turns a failed write of ``path`` into one line for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"cannot write {path}: {reason}; free some space or choose another --output") from error


def _write(path: Path, content: object) -> None:
    with _telling(path):
        write_json(path, content)
