"""Figure 3: Dice of the held-out cases of all losses, across patches and across learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarevox.pipeline.study.results.drawing import Drawn, colours, drawn, marks, plain, shown
from rarevox.pipeline.study.results.outcomes import Outcome, Results, number
from rarevox.pipeline.study.results.paper import shown_loss, shown_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = {"patch": "effective patch", "lr": "learning rate"}


def heldout_figure(results: Results, network: str, folder: Path, name: str) -> Drawn | None:
    """Draw one network; None where it has no figure of a held-out case, or neither patches nor rates to compare.

    Every mark is a held-out case in a cell; the boxes are their quartiles and the line their median.
    """
    from matplotlib.figure import Figure

    cells = results.where(network=network)
    sides = [role for role in SIDES if len(results.labels(role)) > 1]
    if not sides or not any(test_dice(cells)):
        return None
    losses = results.labels("loss")
    picture = Figure(figsize=(6.0 * len(sides), 3.3), layout="constrained")
    panels = picture.subplots(1, len(sides), squeeze=False, sharey=True)[0]
    for ax, role in zip(panels, sides, strict=True):
        _side(ax, cells, role, results.labels(role), losses)
    panels[0].set_ylabel("Dice, held-out cases", fontsize=9)
    look, colour = marks(losses), colours(losses)
    handles = [
        panels[0].plot([], [], look[k], color=colour[k], markersize=5, label=shown(shown_loss(k)))[0] for k in losses
    ]
    picture.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
    title = shown_network(network)
    return drawn(picture, folder, name, title, _said(title, cells, losses))


def test_dice(cells: Sequence[Outcome]) -> list[float]:
    """The Dice of every held-out case in these cells."""
    values = (number(row.get("dice")) for one in cells for row in one.test_cases)
    return [value for value in values if math.isfinite(value)]


def _side(ax: Axes, cells: Sequence[Outcome], role: str, labels: Sequence[str], losses: Sequence[str]) -> None:
    """A group of boxes for each label, a box for each loss."""
    rng, look, colour = np.random.default_rng(0), marks(losses), colours(losses)
    width = 0.8 / len(losses)
    for group, label in enumerate(labels):
        for k, loss in enumerate(losses):
            dice = test_dice([one for one in cells if one.label(role) == label and one.label("loss") == loss])
            if not dice:
                continue
            at = group - 0.4 + (k + 0.5) * width
            box = {"facecolor": colour[loss], "alpha": 0.22, "linewidth": 0}
            line = {"color": colour[loss], "linewidth": 1.0}
            ax.boxplot(
                dice,
                positions=[at],
                widths=0.82 * width,
                showfliers=False,
                patch_artist=True,
                boxprops=box,
                whiskerprops=line,
                showcaps=False,
                medianprops={"color": "#1c1f23", "linewidth": 1.5},
                manage_ticks=False,
            )
            spread = at + rng.uniform(-0.22, 0.22, len(dice)) * width
            ax.scatter(spread, dice, s=11, c=colour[loss], marker=look[loss], alpha=0.75, linewidths=0, zorder=3)
    ax.set_xticks(range(len(labels)), [shown(_name(cells, role, label)) for label in labels])
    ax.set_xlim(-0.55, len(labels) - 0.45)
    ax.set_ylim(-0.02, 1.0)
    ax.set_xlabel(SIDES[role], fontsize=9)
    plain(ax)
    ax.grid(axis="x", visible=False)
    for edge in range(1, len(labels)):
        ax.axvline(edge - 0.5, color="#d9dee4", linewidth=0.8)


def _name(cells: Sequence[Outcome], role: str, label: str) -> str:
    """A label, for patches with the effective size."""
    sizes = {one.patch for one in cells if one.label(role) == label and math.isfinite(one.patch)}
    if role != "patch" or len(sizes) != 1 or label == f"{next(iter(sizes)):g}":
        return label
    return f"{label} ({next(iter(sizes)):g})"


def _said(title: str, cells: Sequence[Outcome], losses: Sequence[str]) -> str:
    """The figure in words: the median of each loss."""
    parts = []
    for loss in losses:
        dice = test_dice([one for one in cells if one.label("loss") == loss])
        if dice:
            parts.append(f"{shown_loss(loss)} {float(np.median(dice)):.2f}")
    return f"Dice of the held-out cases across patches and learning rates, {title}; medians: {', '.join(parts)}."
