"""What can be wrong with a case when it is held against the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.cases import Case, Fault
from pipeline.preparation.fingerprint import CaseFacts


def duplicate_names(cases: Sequence[Case]) -> list[Fault]:
    """Every case has a name of its own; all bearers of a shared one are faulty, since later files are named by it."""
    counts = Counter(case.case for case in cases)
    return [
        Fault(case.case, "duplicate-name", "error", f"{counts[case.case]} cases bear this name", str(case.image[0]))
        for case in cases
        if counts[case.case] > 1
    ]


def duplicate_content(facts: Sequence[CaseFacts]) -> list[Fault]:
    """No two cases hold the same image, voxel for voxel. Where two do, the split keeps them on one side."""
    first: dict[str, str] = {}
    faults = []
    for fact in facts:
        twin = first.setdefault(fact.image_sha256, fact.case)
        if twin != fact.case:
            message = f"the image equals that of {twin}; both are kept on the same side of every split"
            faults.append(Fault(fact.case, "duplicate-content", "warning", message))
    return faults


def channel_count(facts: Sequence[CaseFacts], expected: int | None) -> list[Fault]:
    """Every case has as many channels as were declared, or else as most cases have."""
    counts = Counter(len(fact.channels) for fact in facts)
    if not counts:
        return []
    wanted = expected or counts.most_common(1)[0][0]
    whence = "declared" if expected else "most cases have"
    return [
        Fault(fact.case, "channel-count", "error", f"{len(fact.channels)} channels; {whence} {wanted}")
        for fact in facts
        if len(fact.channels) != wanted
    ]


def spacing_outliers(facts: Sequence[CaseFacts]) -> list[Fault]:
    """No voxel edge is more than three times longer or shorter than the cohort's median along that axis."""
    if len(facts) < 3:
        return []
    spacings = np.asarray([fact.spacing_mm for fact in facts])
    median = np.median(spacings, axis=0)
    ratio = np.maximum(spacings / median, median / spacings).max(axis=1)
    usual = " × ".join(f"{length:.3g}" for length in median)
    return [
        Fault(
            fact.case,
            "spacing-outlier",
            "warning",
            f"voxels of {' × '.join(f'{length:.3g}' for length in fact.spacing_mm)} mm; the median is {usual} mm",
        )
        for fact, by in zip(facts, ratio, strict=True)
        if by > 3
    ]


def orientation_outliers(facts: Sequence[CaseFacts]) -> list[Fault]:
    """Fewer than one case in twenty runs its axes another way than the rest (cohorts that mix on purpose pass)."""
    counts = Counter(fact.orientation for fact in facts)
    usual, _ = counts.most_common(1)[0] if counts else ("", 0)
    return [
        Fault(fact.case, "orientation-outlier", "warning", f"axes run {fact.orientation}; most cases run {usual}")
        for fact in facts
        if fact.orientation != usual and counts[fact.orientation] < len(facts) / 20
    ]


def rare_labels(facts: Sequence[CaseFacts]) -> list[Fault]:
    """Where no labels were declared and there are ten cases or more, a value that one case alone holds is doubtful."""
    counts = Counter(value for fact in facts for value in fact.structures)
    return [
        Fault(fact.case, "rare-label", "warning", f"no other case holds the label value {value}; is it a structure?")
        for fact in facts
        for value in fact.structures
        if len(facts) >= 10 and counts[value] == 1
    ]
