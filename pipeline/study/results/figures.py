"""All figures of a study, each drawn and written where the study has what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
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
    for (network, imbalance), name in _names(results).items():
        found["isolines"].append(isoline_figure(results, network, folder, f"isolines_{name}", imbalance=imbalance))
        example = example_figure(study, plan, results, network, folder, f"example_{name}", imbalance=imbalance)
        found["examples"].append(example)
    drawable = {network for (network, _), one in zip(_names(results), found["isolines"], strict=True) if one}
    for network, name in slugs(results.labels("network")).items():
        theirs = network_name(network)
        if theirs and network in drawable:
            whose = "the paper's values"
            found["paper"].append(
                isoline_figure(paper_results((theirs,)), theirs, folder, f"paper_{name}", whose=whose)
            )
        found["heldout"].append(heldout_figure(results, network, folder, f"heldout_{name}"))
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


def _names(results: Results) -> dict[tuple[str, str], str]:
    """Network and imbalance → part of a file's name, no two alike."""
    pairs = list(product(results.labels("network"), results.labels("imbalance")))
    spoken = [f"{network} {imbalance}".strip() for network, imbalance in pairs]
    if len(set(spoken)) < len(spoken):
        spoken = [repr(pair) for pair in pairs]
    return dict(zip(pairs, map(slugs(spoken).__getitem__, spoken), strict=True))
