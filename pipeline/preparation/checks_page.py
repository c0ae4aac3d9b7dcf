"""The page of the checks: every case with a picture, its figures and what was found, in one HTML file."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.page import write_page
from rarevox.pipeline.preparation.checks.catalogue import CATALOGUE
from rarevox.pipeline.preparation.checks.thumbnail import COLOURS
from rarevox.pipeline.preparation.examine import Examination
from rarevox.pipeline.preparation.fingerprint import CaseFacts

TEMPLATE = Path(__file__).with_name("templates") / "checks.html"
PICTURES_BYTES = 6_500_000
"""JPEG bytes on a page, so that it stays below 10 MB; cases with findings are drawn first."""


def write_checks_page(
    path: Path,
    name: str,
    total: int,
    found: Examination,
    *,
    root: Path,
    structures: Mapping[str, int] | None = None,
) -> Path:
    """Write ``checks.html``.

    Args:
        path: the file, written atomically.
        name: of the data.
        total: how many cases there are, readable or not.
        found: what :func:`rarevox.pipeline.preparation.examine.examine` gave.
        root: the source's folder, left out of file names in messages.
        structures: name to value, for the legend and the figures; None leaves the legend out.
    """
    facts = {fact.case: fact for fact in found.facts}
    called = {value: name for name, value in (structures or {}).items()}
    names = sorted(set(found.cases) | {fault.case for fault in found.faults})
    cases = [_card(case, found, facts.get(case), called) for case in names]
    cases.sort(key=lambda card: (-card["weight"], card["name"]))
    undrawn = _draw(cases, found.pictures)
    warned = {fault.case for fault in found.faults} - found.rejected
    return write_page(
        path,
        TEMPLATE,
        title=f"Checks: {name}",
        style=("checks.css",),
        script=("checks.js",),
        root=f"{root}/",
        total=total,
        rejected=len(found.rejected),
        warned=len(warned),
        fixed=len({fix.case for fix in found.fixes}),
        made=len(CATALOGUE),
        checks=_checks(found),
        cases=cases,
        legend=_legend(structures or {}),
        undrawn=undrawn,
    )


def _card(case: str, found: Examination, facts: CaseFacts | None, called: Mapping[int, str]) -> dict[str, Any]:
    """What the page shows of one case; ``called`` has the names of label values."""
    faults = [fault for fault in found.faults if fault.case == case]
    fixes = [fix for fix in found.fixes if fix.case == case]
    marks = sorted({fault.severity for fault in faults} | ({"fixed"} if fixes else set()))
    return {
        "name": case,
        "faults": faults,
        "fixes": fixes,
        "checks": sorted({fault.check for fault in faults}),
        "marks": marks,
        "weight": sum(100 if fault.severity == "error" else 1 for fault in faults),
        "facts": _figures(facts, called) if facts else "",
        "voxels": int(np.prod(facts.size)) if facts else 0,
        "foreground": sum(part["volume_ml"] for part in facts.structures.values()) if facts else 0,
        "spacing": max(facts.spacing_mm) if facts else 0,
        "picture": "",
    }


def _figures(facts: CaseFacts, called: Mapping[int, str]) -> str:
    size, spacing = "×".join(map(str, facts.size)), "×".join(f"{edge:.3g}" for edge in facts.spacing_mm)
    volumes = ", ".join(
        f"{called.get(value, f'label {value}')}: {part['volume_ml']:.3g} ml" for value, part in facts.structures.items()
    )
    return f"{size} voxels of {spacing} mm, {facts.orientation}; {volumes or 'no foreground'}"


def _draw(cases: Iterable[dict[str, Any]], pictures: Mapping[str, bytes]) -> int:
    """Give the cards their pictures until the page is full; returns how many had to go without."""
    room, undrawn = PICTURES_BYTES, 0
    for card in cases:
        picture = pictures.get(card["name"], b"")
        if len(picture) > room:
            undrawn += 1
            continue
        room -= len(picture)
        card["picture"] = base64.b64encode(picture).decode("ascii")
    return undrawn


def _checks(found: Examination) -> list[dict[str, Any]]:
    """The checks that found something, errors first, with the number of cases."""
    cases = Counter(check for check, _ in {(fault.check, fault.case) for fault in found.faults})
    rows = [
        {"name": n, "severity": CATALOGUE[n].severity, "what": CATALOGUE[n].what, "cases": c} for n, c in cases.items()
    ]
    return sorted(rows, key=lambda row: (row["severity"], -row["cases"], row["name"]))


def _legend(structures: Mapping[str, int]) -> list[dict[str, str]]:
    ordered = sorted(structures.items(), key=lambda item: item[1])
    return [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*COLOURS[number % len(COLOURS)])}
        for number, (name, _) in enumerate(ordered)
    ]
