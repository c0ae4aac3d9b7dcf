"""The study of imbalance: Dice and detected lesions of each loss, from common structures to the rarest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarevox.pipeline.study.results.drawing import COLOURS, Drawn, colours, drawn, marks, plain, shown
from rarevox.pipeline.study.results.outcomes import Outcome, Results, number, value_of
from rarevox.pipeline.study.results.paper import shown_loss, shown_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 6
"""More losses than this are no longer told apart as lines."""
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

    Up to ``MOST_LINES`` losses are lines, the mean over seeds and cases within a band from the lowest to the highest;
    more are rows of a map of the means, the best on top.
    """
    from matplotlib.figure import Figure

    valued = ((value_of(label), label) for label in results.labels("imbalance"))
    shares = sorted(((share, label) for share, label in valued if share > 0), reverse=True)
    cells, losses = results.where(network=network), results.labels("loss")
    panels = [(title, of) for title, of in PANELS if any(of(one) for one in cells)]
    if len(shares) < 2 or not panels:
        return None
    lines = len(losses) <= MOST_LINES
    height = 3.5 if lines else 0.9 + 0.27 * len(losses)
    picture = Figure(figsize=(3.4 * len(panels) + 1.3, height), layout="constrained")
    axes = picture.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    tables = [table_of_means(cells, losses, shares, of) for _, of in panels]
    order = best_first(tables[min(1, len(tables) - 1)])
    for ax, (title, _), table in zip(axes, panels, tables, strict=True):
        if lines:
            _lines(ax, losses, shares, table)
        else:
            _map(ax, [losses[i] for i in order], shares, table[order])
        ax.set_title(title, fontsize=10.5)
        ax.set_xlabel("structure : volume", fontsize=9)
    if lines:
        handles, names = axes[0].get_legend_handles_labels()
        picture.legend(handles, names, loc="outside right upper", fontsize=9, frameon=False)
    caption = shown_network(network) or "All cells"
    return drawn(picture, folder, name, caption, _said(caption, cells, losses, shares))


def table_of_means(
    cells: Sequence[Outcome], losses: Sequence[str], shares: Sequence[tuple[float, str]], of: Figures
) -> np.ndarray:
    """Mean, lowest and highest figure of each loss at each imbalance: (losses, shares, 3), NaN where there is none."""
    table = np.full((len(losses), len(shares), 3), np.nan)
    for row, loss in enumerate(losses):
        for column, (_, label) in enumerate(shares):
            here = [one for one in cells if one.label("loss") == loss and one.label("imbalance") == label]
            values = [value for one in here for value in of(one)]
            if values:
                table[row, column] = sum(values) / len(values), min(values), max(values)
    return table


def best_first(table: np.ndarray) -> np.ndarray:
    """The rows in the order of their means over the imbalances, what is missing counted as 0: it failed, or is to come.

    >>> best_first(np.array([[[0.9], [np.nan]], [[0.5], [0.5]]])).tolist()
    [1, 0]
    """
    return np.argsort(-np.nan_to_num(table[:, :, 0]).mean(axis=1), kind="stable")


def _lines(ax: Axes, losses: Sequence[str], shares: Sequence[tuple[float, str]], table: np.ndarray) -> None:
    """A line for each loss over the imbalance, the rarest on the right."""
    look, colour, x = marks(losses), colours(losses), np.array([share for share, _ in shares])
    for loss, (middle, low, high) in zip(losses, table.transpose(0, 2, 1), strict=True):
        known, own = np.isfinite(middle), colour[loss]
        ax.fill_between(x[known], low[known], high[known], color=own, alpha=0.1, linewidth=0)
        (line,) = ax.plot(x[known], middle[known], look[loss] + "-", color=own, markersize=5, linewidth=1.6)
        line.set_label(shown(shown_loss(loss)))
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_xticks(x, [ratio(share) for share in x])
    ax.minorticks_off()
    ax.set_ylim(-0.04, 1.02)
    plain(ax)


def _map(ax: Axes, losses: Sequence[str], shares: Sequence[tuple[float, str]], table: np.ndarray) -> None:
    """A row for each loss, a column for each imbalance, the mean in words and colour."""
    means = table[:, :, 0]
    ax.imshow(np.ma.masked_invalid(means), cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(means):
        text, bright = (f"{value:.2f}", value > 0.6) if np.isfinite(value) else ("–", True)
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color="#1c1f23" if bright else "white")
    ax.set_xticks(range(len(shares)), [ratio(share) for share, _ in shares], fontsize=8)
    ax.set_yticks(range(len(losses)), [shown(shown_loss(loss)) for loss in losses], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_facecolor("#eceff2")


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
