"""The study of imbalance: Dice and detected lesions of each loss, from common structures to the rarest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarevox.pipeline.study.results.drawing import Drawn, colours, drawn, marks, plain, shown
from rarevox.pipeline.study.results.outcomes import Outcome, Results, number, value_of
from rarevox.pipeline.study.results.paper import shown_loss, shown_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Figures = Callable[[Outcome], list[float]]


def training_dice(one: Outcome) -> list[float]:
    """The median Dice of the training batches."""
    return [one.dice] if math.isfinite(one.dice) else []


def heldout(column: str) -> Figures:
    """The figures of a column, of every held-out case of a cell: ``dice``, ``lesion_recall``, ``lesion_f1``."""

    def figures(one: Outcome) -> list[float]:
        return [value for row in one.test_cases if math.isfinite(value := number(row.get(column)))]

    return figures


PANELS: tuple[tuple[str, Figures], ...] = (
    ("training Dice", training_dice),
    ("Dice, held-out cases", heldout("dice")),
    ("lesions detected", heldout("lesion_recall")),
    ("lesion F1", heldout("lesion_f1")),
)


def imbalance_figure(results: Results, network: str, folder: Path, name: str) -> Drawn | None:
    """Draw one network; None where imbalance is no axis, its labels are no numbers, or there is no figure yet.

    The line is the mean over seeds and cases, the band from the lowest to the highest of them.
    """
    from matplotlib.figure import Figure

    shares = sorted(
        ((value_of(label), label) for label in results.labels("imbalance") if value_of(label) > 0), reverse=True
    )
    cells, losses = results.where(network=network), results.labels("loss")
    panels = [(title, of) for title, of in PANELS if any(of(one) for one in cells)]
    if len(shares) < 2 or not panels:
        return None
    picture = Figure(figsize=(3.4 * len(panels) + 1.3, 3.5), layout="constrained")
    axes = picture.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (title, of) in zip(axes, panels, strict=True):
        _panel(ax, cells, losses, shares, of)
        ax.set_title(title, fontsize=10.5)
        ax.set_xlabel("structure : volume", fontsize=9)
    handles, names = axes[0].get_legend_handles_labels()
    picture.legend(handles, names, loc="outside right upper", fontsize=9, frameon=False)
    caption = shown_network(network) or "All cells"
    return drawn(picture, folder, name, caption, _said(caption, cells, losses, shares))


def _panel(
    ax: Axes, cells: Sequence[Outcome], losses: Sequence[str], shares: Sequence[tuple[float, str]], of: Figures
) -> None:
    """A line for each loss over the imbalance, the rarest on the right; a cross below where a cell failed."""
    look, colour = marks(losses), colours(losses)
    for loss in losses:
        points = []
        for share, label in shares:
            here = [one for one in cells if one.label("loss") == loss and one.label("imbalance") == label]
            values = [value for one in here for value in of(one)]
            if values:
                points.append((share, sum(values) / len(values), min(values), max(values)))
            elif any(one.state == "failed" for one in here):
                ax.scatter([share], [-0.03], marker="x", color=colour[loss], s=30, clip_on=False)
        x, middle, low, high = np.array(points, float).T if points else np.empty((4, 0))
        ax.fill_between(x, low, high, color=colour[loss], alpha=0.1, linewidth=0)
        ax.plot(
            x, middle, marker=look[loss], color=colour[loss], markersize=5, linewidth=1.6, label=shown(shown_loss(loss))
        )
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_xticks([share for share, _ in shares], [ratio(share) for share, _ in shares])
    ax.minorticks_off()
    ax.set_ylim(-0.04, 1.02)
    plain(ax)


def ratio(share: float) -> str:
    """A share as a ratio.

    >>> ratio(1e-5), ratio(0.02)
    ('1 : 100 000', '1 : 50')
    """
    return f"1 : {round(1 / share):,}".replace(",", " ")


def _said(title: str, cells: Sequence[Outcome], losses: Sequence[str], shares: Sequence[tuple[float, str]]) -> str:
    """The figure in words: the training Dice of each loss at both ends."""
    parts = []
    for loss in losses:
        ends = []
        for _, label in (shares[0], shares[-1]):
            here = [one.dice for one in cells if one.label("loss") == loss and one.label("imbalance") == label]
            known = [value for value in here if math.isfinite(value)]
            ends.append(f"{sum(known) / len(known):.2f}" if known else "–")
        parts.append(f"{shown_loss(loss)} {ends[0]} and {ends[1]}")
    return (
        f"Dice over imbalance, {title}; training Dice at {ratio(shares[0][0])} and at {ratio(shares[-1][0])}: "
        f"{'; '.join(parts)}."
    )
