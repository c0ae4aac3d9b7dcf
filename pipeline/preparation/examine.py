"""One pass over all cases: read, corrected, checked, measured and drawn; then held against the others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from rarevox.pipeline.console import progress_bar
from rarevox.pipeline.preparation.cases import Case, Fault, Source
from rarevox.pipeline.preparation.checks.case import check_case, load_case
from rarevox.pipeline.preparation.checks.thumbnail import thumbnail
from rarevox.pipeline.preparation.cohort import (
    channel_count,
    duplicate_content,
    duplicate_names,
    exact_twins,
    intensity_outliers,
    is_plain,
    near_duplicates,
    near_twins,
    orientation_outliers,
    plain_names,
    rare_labels,
    spacing_outliers,
    tissue_apart,
)
from rarevox.pipeline.preparation.corrected.corrections import Fix, correct
from rarevox.pipeline.preparation.corrected.n4_copies import n4_case
from rarevox.pipeline.preparation.fingerprint import CaseFacts, measure
from rarevox.pipeline.preparation.stated_split import split_leaks


@dataclass(frozen=True)
class Treatment:
    """What is done to the cases besides looking: folders for corrected copies and for N4-corrected images, or None."""

    fixed: Path | None = None
    n4: Path | None = None


@dataclass
class Examination:
    """What came out.

    Attributes:
        cases: by name, with corrected copies in place of the originals.
        facts: of the cases without an error, sorted by name.
        faults: of all cases, errors first.
        fixes: what was corrected.
        pictures: JPEG by case, of those that could be read.
        twins: pairs of cases with the same or nearly the same image.
    """

    cases: dict[str, Case]
    facts: list[CaseFacts] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    twins: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def rejected(self) -> set[str]:
        """Names of the cases with an error."""
        return {fault.case for fault in self.faults if fault.severity == "error"}


def examine(
    source: Source,
    declared: dict[str, int] | None,
    treatment: Treatment | None = None,
    workers: int | None = None,
) -> Examination:
    """Check and measure all cases in one pass, then the cases against each other.

    Threads do: decompression, sums and hashing leave the interpreter's lock.
    """
    values = {value: name for name, value in declared.items()} if declared else None
    count = workers or min(4, os.cpu_count() or 1)
    found = Examination({case.case: case for case in source.cases})
    found.faults = [*source.faults, *duplicate_names(source.cases), *plain_names(source.cases)]
    cases = [case for case in source.cases if is_plain(case.case)]
    with progress_bar() as bar, ThreadPoolExecutor(count) as pool:
        task = bar.add_task("Checking cases", total=len(cases))
        futures = [
            pool.submit(_examine_case, case, (values, source.ignored), treatment or Treatment()) for case in cases
        ]
        try:
            for future in as_completed(futures):
                _collect(found, *future.result())
                bar.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C need not wait for the cases in the queue
            raise
    found.facts.sort(key=lambda fact: (fact.case, fact.sha256))
    found.fixes.sort(key=lambda fix: (fix.case, fix.file, fix.check))
    _compare(found, source, declared)
    found.faults.sort(key=lambda fault: (fault.severity, fault.case, fault.check, fault.message))
    return found


def _collect(
    found: Examination, case: Case, facts: CaseFacts | None, faults: list[Fault], fixes: list[Fix], picture: bytes
) -> None:
    found.cases[case.case] = case
    found.faults.extend(faults)
    found.fixes.extend(fixes)
    found.facts.extend([facts] if facts else [])
    if picture:
        found.pictures[case.case] = picture


def _compare(found: Examination, source: Source, declared: dict[str, int] | None) -> None:
    """The checks of the cohort, over the cases that have no error of their own."""
    facts = found.facts
    found.faults.extend(channel_count(facts, len(source.channels) if source.channels else None))
    for check in (duplicate_content, spacing_outliers, tissue_apart, orientation_outliers):
        found.faults.extend(check(facts))
    found.faults.extend(near_duplicates(facts, {case.case: case.subject for case in found.cases.values()}))
    found.faults.extend(intensity_outliers(facts, source.channels))
    if declared is None:
        found.faults.extend(rare_labels(facts))
    found.twins = [*exact_twins(facts), *near_twins(facts)]
    found.faults.extend(split_leaks([found.cases[fact.case] for fact in facts], found.twins))


def _examine_case(
    case: Case, labels: tuple[dict[int, str] | None, int | None], treatment: Treatment
) -> tuple[Case, CaseFacts | None, list[Fault], list[Fix], bytes]:
    loaded, faults = load_case(case, *labels)
    fixes: list[Fix] = []
    if loaded is not None and treatment.fixed is not None:
        loaded, faults, fixes = correct(loaded, treatment.fixed)
    if loaded is None:
        return case, None, faults, fixes, b""
    faults = check_case(loaded)
    wrong = any(fault.severity == "error" for fault in faults)
    if treatment.n4 is not None and not wrong:
        loaded, negative = n4_case(loaded, treatment.n4)
        faults, wrong = [*faults, *negative], bool(negative)
    return loaded.case, (None if wrong else measure(loaded)), faults, fixes, thumbnail(loaded)
