"""All figures of a study, each drawn and written where the study has what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rarevox.pipeline.study.plan import Plan
from rarevox.pipeline.study.results.drawing import Drawn, slugs
from rarevox.pipeline.study.results.example_figure import example_figure
from rarevox.pipeline.study.results.heldout_figure import heldout_figure
from rarevox.pipeline.study.results.imbalance_figure import imbalance_figure
from rarevox.pipeline.study.results.isoline_figure import isoline_figure
from rarevox.pipeline.study.results.outcomes import Results
from rarevox.pipeline.study.results.paper import network_name, paper_results
from rarevox.pipeline.study.results.rank_figure import rank_figure, robustness_figure
from rarevox.pipeline.study.results.ranking import Ranking


@dataclass(frozen=True)
class Figures:
    """The figures by section; a section without any says why on the page."""

    isolines: tuple[Drawn, ...] = ()
    paper_isolines: tuple[Drawn, ...] = ()
    heldout: tuple[Drawn, ...] = ()
    examples: tuple[Drawn, ...] = ()
    imbalance: tuple[Drawn, ...] = ()
    ranks: Drawn | None = None
    robustness: Drawn | None = None


def draw_all(
    study: Path,
    plan: Plan,
    results: Results,
    ranks: Ranking | None,
    counts: Mapping[str, Mapping[str, tuple[int, int]]],
    folder: Path,
) -> Figures:
    """Draw what can be drawn.

    Args:
        study: its folder.
        plan: of the study.
        results: of the study.
        ranks: of the losses.
        counts: network → loss → (cells above half of the best, cells).
        folder: for the SVG and the PDF files.
    """
    found: dict[str, list[Drawn | None]] = {
        key: [] for key in ("isolines", "paper", "heldout", "examples", "imbalance")
    }
    names, imbalances = slugs(results.labels("network")), slugs(results.labels("imbalance"))
    for network, name in names.items():
        for imbalance, tail in imbalances.items():
            own = f"isolines_{name}" + (f"_{tail}" if imbalance else "")
            found["isolines"].append(isoline_figure(results, network, folder, own, imbalance=imbalance))
        theirs = network_name(network)
        if theirs and found["isolines"][-1] is not None:
            whose = "the paper's values"
            found["paper"].append(
                isoline_figure(paper_results((theirs,)), theirs, folder, f"paper_{name}", whose=whose)
            )
        found["heldout"].append(heldout_figure(results, network, folder, f"heldout_{name}"))
        found["examples"].append(example_figure(study, plan, results, network, folder, f"example_{name}"))
        found["imbalance"].append(imbalance_figure(results, network, folder, f"imbalance_{name}"))
    whole = {key: tuple(one for one in drawn if one is not None) for key, drawn in found.items()}
    return Figures(
        isolines=whole["isolines"],
        paper_isolines=whole["paper"],
        heldout=whole["heldout"],
        examples=whole["examples"],
        imbalance=whole["imbalance"],
        ranks=rank_figure(ranks, folder, "ranks") if ranks else None,
        robustness=robustness_figure(counts, results.labels("loss"), folder, "robustness") if counts else None,
    )
