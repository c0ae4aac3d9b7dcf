"""The page of a study: verdicts, tables beside the paper's, isolines, held-out cases, ranks, all cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.evaluation.comparison.tables import p_text
from rarevox.pipeline.page import write_page
from rarevox.pipeline.study.plan import read_plan
from rarevox.pipeline.study.results import rules
from rarevox.pipeline.study.results.example_figure import ABSENT
from rarevox.pipeline.study.results.figures import Figures
from rarevox.pipeline.study.results.imbalance_figure import MOST_LINES
from rarevox.pipeline.study.results.outcomes import Results
from rarevox.pipeline.study.results.paper import shown_loss, shown_network
from rarevox.pipeline.study.results.ranking import LEVEL, Ranking
from rarevox.pipeline.study.results.tables import HEADINGS, PaperTable, best_of, share_rows
from rarevox.pipeline.study.results.trained import MARGIN, UNTRAINED
from rarevox.pipeline.study.results.verdict import FAILS, HOLDS, UNDECIDED, UNTESTED, Verdict

TEMPLATE = Path(__file__).with_name("templates") / "study.html"
WORDS = {HOLDS: "✓ holds", FAILS: "✗ does not hold", UNDECIDED: "? undecided", UNTESTED: "– not tested"}
PLURAL = {HOLDS: "hold", FAILS: "do not hold", UNDECIDED: "undecided"}
WIDEST = 10
"""Columns up to which a table fits the page; one with more, and fewer rows, is turned: losses are its rows then."""
CLASSES = {HOLDS: "good", FAILS: "bad", UNDECIDED: "open", UNTESTED: "note"}


def write_study_page(
    path: Path,
    study: Path,
    results: Results,
    figures: Figures,
    tables: Sequence[PaperTable],
    heldout: PaperTable | None,
    ranks: Ranking | None,
    counts: Mapping[str, Mapping[str, tuple[int, int]]],
    judged: Sequence[Verdict],
) -> Path:
    """Fill the template and write the page."""
    order = [HOLDS, FAILS, UNDECIDED, UNTESTED]
    return write_page(
        path,
        TEMPLATE,
        title=f"Study {read_plan(study).name}",
        style=("study.css",),
        results=results,
        figures=figures,
        tables=[_view(table) for table in tables],
        heldout=_view(heldout) if heldout else None,
        shares=_shares(results),
        ranks=ranks,
        robustness=_robustness(counts, results.labels("loss")),
        verdicts=sorted(judged, key=lambda one: order.index(one.verdict)),
        tally={word: sum(one.verdict == word for one in judged) for word in order},
        words=WORDS,
        sections=_sections(results, figures, heldout, ranks, tested=any(one.verdict != UNTESTED for one in judged)),
        plural=PLURAL,
        most_lines=MOST_LINES,
        classes=CLASSES,
        level=LEVEL,
        margin=MARGIN,
        absent=absences(results, figures, heldout),
        axes=_axes(results),
        cells=results.outcomes,
        cell_roles=[role for role in results.axes if len(results.axes[role]) > 1],
        headings=HEADINGS,
        reasons=any(one.reason for one in results.outcomes),
        result={"conventions": conventions(results), "versions": results.versions},
        filters={"p": p_text, "loss": shown_loss, "network": shown_network, "percent": percent_text},
    )


def percent_text(share: float | None) -> str:
    """A share of the foreground, with as many digits as it needs.

    >>> percent_text(0.52), percent_text(0.002), percent_text(1e-5), percent_text(None)
    ('52 %', '0.20 %', '0.0010 %', '–')
    """
    if share is None or not math.isfinite(share):
        return "–"
    value = 100 * share
    digits = 0 if value >= 10 or value == 0 else 1 - math.floor(math.log10(value)) if value < 1 else 1
    return f"{value:.{digits}f} %"


def shade(value: float) -> str:
    """The ground of a table's cell: the higher the Dice, the bluer.

    >>> shade(0.5), shade(float("nan"))
    ('background: rgba(0,114,178,0.15)', '')
    """
    return f"background: rgba(0,114,178,{0.3 * max(0.0, min(1.0, value)):.2f})" if math.isfinite(value) else ""


def _view(table: PaperTable) -> dict[str, Any]:
    """What the template shows of a table: rows with the cells' words, the first label of a group over its rows."""
    rows, before = [], ""
    for labels in table.rows:
        best = best_of(table, labels)
        cells = [
            {"entry": entry, "best": i in best, "style": shade(entry.value)}
            for i, entry in enumerate(table.row(labels))
        ]
        first = labels[0] if labels else ""
        begins = first != before or len(labels) < 2
        rows.append({"labels": labels if begins else ("", *labels[1:]), "cells": cells, "begins": begins})
        before = first
    turned = len(table.columns) > max(WIDEST, len(table.rows))
    return {
        "table": table,
        "rows": rows,
        "heads": [HEADINGS.get(role, role) for role in table.row_roles],
        "turned": turned,
        "over": [", ".join(labels) for labels in table.rows],
    }


def _shares(results: Results) -> list[dict[str, Any]]:
    """Table 1, without rows of which nothing is known yet."""
    return [row for row in share_rows(results) if math.isfinite(float(row["share"]))]  # type: ignore[arg-type]


def _robustness(
    counts: Mapping[str, Mapping[str, tuple[int, int]]], losses: Sequence[str]
) -> list[tuple[str, int, int]]:
    """Loss, cells above half of the best of their network, cells: over all networks, the most robust first.

    None while losses differ in how many cells they have: a comparison would say which came first.
    """
    rows = []
    for loss in losses:
        own = [count[loss] for count in counts.values()]
        rows.append((loss, sum(above for above, _ in own), sum(n for _, n in own)))
    if len({n for _, _, n in rows}) > 1:
        return []
    return sorted(rows, key=lambda row: (-(row[1] / row[2] if row[2] else 0.0), -row[1]))


def _sections(
    results: Results, figures: Figures, heldout: PaperTable | None, ranks: Ranking | None, *, tested: bool
) -> dict[str, str]:
    """Anchor → name of the sections that the page has, in their order; the paper's claims where some are tested."""
    there = {
        "claims": ("Claims", tested),
        "dice": ("Training Dice", True),
        "isolines": ("Isolines", bool(figures.isolines)),
        "held-out": ("Held-out cases", heldout is not None or bool(figures.heldout)),
        "example": ("One case", bool(figures.examples)),
        "imbalance": ("Imbalance", bool(figures.imbalance)),
        "ranks": ("Ranks", ranks is not None),
        "robustness": ("Robustness", figures.robustness is not None),
        "share": ("Foreground share", bool(_shares(results))),
        "cells": ("All cells", True),
        "how": ("How", True),
    }
    return {anchor: name for anchor, (name, shown) in there.items() if shown}


def _axes(results: Results) -> list[tuple[str, str]]:
    """Each axis and its labels, as the paper names them."""
    shown = {"network": shown_network, "loss": shown_loss}
    return [
        (results.names.get(role, role), ", ".join(shown.get(role, str)(label) for label in labels))
        for role, labels in results.axes.items()
        if any(labels)
    ]


def absences(results: Results, figures: Figures, heldout: PaperTable | None) -> list[str]:
    """What the study has no figure of, and why."""
    found = []
    if not figures.isolines:
        grid = min(len(results.labels("patch")), len(results.labels("lr")))
        why = "patch and learning rate are not both axes" if grid < 2 else "no loss has two by two cells yet"
        found.append(f"Isolines (figures 1 and 2): {why}.")
    if heldout is None:
        found.append("Held-out cases (figure 3): no cell has been evaluated on them.")
    if not figures.examples:
        found.append(f"One case after each loss (figure 4): {ABSENT}")
    if len(results.labels("imbalance")) < 2:
        found.append("Dice over imbalance: imbalance is no axis.")
    return found


def conventions(results: Results) -> dict[str, str]:
    """What the figures mean."""
    return {
        "training Dice": f"hard Dice of the foreground (labels above 0) of the training batch in the effective patch, "
        f"at every iteration; median (interquartile range) over the last {results.last}",
        "foreground share": "of the voxels of the effective patches drawn; the median over the patches of a cell, the "
        "mean of these over cells",
        "held-out cases": "Dice of whole volumes; the mean over cases and structures",
        "isolines": "interpolated linearly between cells over the logarithm of the learning rate and the edge of the "
        "effective patch; a square with a cell that is missing is cut to the triangle of the others",
        "failed cells": "marked, listed, and left out of figures; one whose loss became infinite counts as Dice 0",
        "seeds": "cells that differ in the seed alone stand in the tables with the mean of their figures",
        "ranks": "of the losses within each setting of all other axes, by training Dice, 1 the best; ties share the "
        "mean rank; Friedman's test, then Wilcoxon's signed-rank test of each pair with Holm's correction. Settings "
        "share their data, so the p-values speak of this grid on this dataset and not of others",
        "robustness": "the share of cells whose training Dice is above half of the best of the same network, and "
        f"{MARGIN} or more above what marking every voxel would have had on the same patches",
        "every voxel marked": "the Dice that this has on the same patches, 2·s / (1 + s) of a share s of foreground: "
        "what a network that has learnt nothing can have; known where there is one structure",
        "verdicts": f"a network is untrained below a Dice of {UNTRAINED}, and where it is not {MARGIN} ahead of every "
        f"voxel marked; the imbalance is strong up to {rules.STRONG:.0%} of foreground and mild from {rules.MILD:.0%}; "
        f"differences count from {MARGIN}",
        "paper": "Sudre, Li, Vercauteren, Ourselin & Cardoso, Generalised Dice overlap as a deep learning loss "
        "function for highly unbalanced segmentations, DLMIA 2017",
    }
