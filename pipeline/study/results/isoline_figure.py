"""Figures 1 and 2: lines of equal Dice over learning rate and effective patch, a panel for each loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.study.results.drawing import COLOURS, Drawn, drawn, power, shown
from rarevox.pipeline.study.results.isolines import Surface, lines_of, surface_of
from rarevox.pipeline.study.results.outcomes import Results
from rarevox.pipeline.study.results.paper import shown_loss, shown_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 4
_CROSS = "#d62f1f"
_APART = 0.09
"""Between the values of two lines, as a share of a panel."""


def isoline_figure(
    results: Results, network: str, folder: Path, name: str, *, imbalance: str = "", whose: str = ""
) -> Drawn | None:
    """Draw one network; None where no loss has a grid of two learning rates and two patches.

    Args:
        results: of the study.
        network: label of the network.
        folder: for the SVG and the PDF.
        name: of these files.
        imbalance: label of the imbalance, where that is an axis.
        whose: said in the caption of figures that are not the study's own.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    losses, surfaces = results.labels("loss"), {}
    for loss in losses:
        cells = [one for one in results.where(network=network, loss=loss) if one.label("imbalance") == imbalance]
        surfaces[loss] = surface_of(cells, results.labels("patch"), results.labels("lr"))
    if not any(surface.drawable for surface in surfaces.values()):
        return None
    across = min(ACROSS, len(losses))
    down = math.ceil(len(losses) / across)
    picture = Figure(figsize=(2.75 * across + 0.9, 2.75 * down + 0.35), layout=ConstrainedLayoutEngine(wspace=0.05))
    panels = picture.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    filled: Any = None
    for number, ax in enumerate(panels.flat):
        if number >= len(losses):
            ax.set_visible(False)
            continue
        ax.set_title(shown(shown_loss(losses[number])), fontsize=11)
        filled = _panel(ax, surfaces[losses[number]]) or filled
    _axes(panels, list(surfaces.values()))
    bar = picture.colorbar(filled, ax=panels, fraction=0.03, pad=0.015, ticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0])
    bar.set_label("training Dice, median", fontsize=9)
    bar.ax.tick_params(labelsize=8.5, length=3)
    title = shown_network(network) + (f", imbalance {imbalance}" if imbalance else "") + (f", {whose}" if whose else "")
    return drawn(picture, folder, name, title, _said(title, losses, surfaces))


def _panel(ax: Axes, surface: Surface) -> Any:
    """One loss: filled between the lines, the lines with their values, a mark where a cell was trained."""
    filled = None
    if surface.drawable:
        x, y, dice = surface.log_rates, surface.patches, np.ma.masked_invalid(surface.dice)
        filled = ax.contourf(x, y, dice, levels=np.linspace(0, 1, 21), cmap=COLOURS, corner_mask=True)
        named: list[np.ndarray] = []
        for level, line in lines_of(surface):
            ax.plot(line[:, 0], line[:, 1], color="white", linewidth=1.1, alpha=0.9)
            _name(ax, line, level, surface, named)
    columns, rows = np.meshgrid(surface.log_rates, surface.patches)
    known, lost = np.isfinite(surface.dice), surface.failed
    waiting = ~known & ~lost
    on_top: dict[str, Any] = {"zorder": 4, "clip_on": False}
    ax.scatter(columns[known], rows[known], s=20, c="white", edgecolors="#1c1f23", linewidths=0.9, **on_top)
    ax.scatter(columns[waiting], rows[waiting], s=20, facecolors="none", edgecolors="#98a1ab", **on_top)
    ax.scatter(columns[lost], rows[lost], s=75, c=_CROSS, marker="X", edgecolors="white", linewidths=0.8, **on_top)
    return filled


def _name(ax: Axes, line: np.ndarray, level: float, surface: Surface, named: list[np.ndarray]) -> None:
    """The value of a line at the middle of its longest stretch, unless another line's value stands there already."""
    size = np.array([np.ptp(surface.log_rates), np.ptp(surface.patches)])
    steps = np.diff(line, axis=0) / size
    longest = int(np.argmax((steps**2).sum(axis=1))) if len(steps) else 0
    at = line[longest : longest + 2].mean(axis=0)
    if any(np.abs((at - other) / size).max() < _APART for other in named):
        return
    named.append(at)
    box = {"boxstyle": "round,pad=0.12", "facecolor": "#1c1f23", "alpha": 0.6, "linewidth": 0}
    ax.text(at[0], at[1], f"{level:g}", color="white", fontsize=7, ha="center", va="center", bbox=box, zorder=3)


def _axes(panels: np.ndarray, surfaces: Sequence[Surface]) -> None:
    """Ticks at what was tried, names at the outer edges."""
    rates = sorted({float(x) for surface in surfaces for x in surface.log_rates})
    patches = sorted({float(y) for surface in surfaces for y in surface.patches})
    for ax in panels.flat:
        ax.set_xticks(rates, [power(10**rate) for rate in rates])
        ax.set_yticks(patches, [f"{patch:g}" for patch in patches])
        ax.tick_params(length=3, labelsize=8.5)
        ax.spines[:].set_visible(False)
        ax.set_facecolor("#eceff2")
    for ax in panels[-1]:
        ax.set_xlabel("learning rate", fontsize=9)
    for ax in panels[:, 0]:
        ax.set_ylabel("effective patch, voxels", fontsize=9)


def _said(title: str, losses: Sequence[str], surfaces: dict[str, Surface]) -> str:
    """The figure in words: the best of each loss."""
    parts = []
    for loss in losses:
        dice = surfaces[loss].dice
        if np.isfinite(dice).any():
            y, x = np.unravel_index(int(np.nanargmax(dice)), dice.shape)
            rate, patch = 10 ** float(surfaces[loss].log_rates[x]), float(surfaces[loss].patches[y])
            parts.append(f"{shown_loss(loss)} at best {dice[y, x]:.2f} at {rate:g} and patch {patch:g}")
    return f"Training Dice over learning rate and effective patch, {title}: {'; '.join(parts)}."
