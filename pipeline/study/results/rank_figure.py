"""The diagram of average ranks, with what the tests do not tell apart; and the bars of robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rarevox.pipeline.study.results.drawing import Drawn, colours, drawn, plain, shown
from rarevox.pipeline.study.results.paper import shown_loss, shown_network
from rarevox.pipeline.study.results.ranking import Ranking


def rank_figure(ranking: Ranking, folder: Path, name: str) -> Drawn:
    """Draw average ranks on a line, best on the left; bars join losses that no pairwise test tells apart.

    Source of the form: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
    """
    from matplotlib.figure import Figure

    losses, last = ranking.losses, len(ranking.losses)
    half = (last + 1) // 2
    depth = 0.55 + 0.42 * half + 0.16 * len(ranking.groups)
    picture = Figure(figsize=(8.4, 0.75 + 0.62 * depth), layout="constrained")
    ax = picture.subplots()
    ax.set_xlim(1 - 0.28 * last, last + 0.28 * last)
    ax.set_ylim(-depth, 0.75)
    ax.axis("off")
    ax.plot([1, last], [0, 0], color="#1c1f23", linewidth=1.3)
    for tick in range(1, last + 1):
        ax.plot([tick, tick], [0, 0.1], color="#1c1f23", linewidth=1.1)
        ax.text(tick, 0.15, str(tick), ha="center", va="bottom", fontsize=9)
    if ranking.critical_difference < last - 1:
        ax.plot([1, 1 + ranking.critical_difference], [0.55, 0.55], color="#565f6b", linewidth=2)
        said = f"critical difference {ranking.critical_difference:.2f}"
        ax.text(1 + ranking.critical_difference / 2, 0.6, said, ha="center", fontsize=8, color="#565f6b")
    for k, group in enumerate(ranking.groups):
        places = [ranking.average_ranks[losses.index(loss)] for loss in group]
        height = -0.2 - 0.16 * k
        ax.plot(
            [min(places) - 0.04, max(places) + 0.04],
            [height, height],
            color="#1c1f23",
            linewidth=3.2,
            solid_capstyle="round",
        )
    away = 0.014 * last  # between a line's end and its name
    colour, top = colours(losses), 0.4 + 0.16 * len(ranking.groups)
    for k, (loss, rank) in enumerate(zip(losses, ranking.average_ranks, strict=True)):
        left = k < half
        height = -top - 0.42 * (k if left else last - 1 - k)
        end = 1 - 0.05 * last if left else last + 0.05 * last
        ax.plot([rank, rank, end], [0, height, height], color=colour[loss], linewidth=1.2)
        ax.plot([rank], [0], "o", color=colour[loss], markersize=5, zorder=3)
        text, side = f"{shown(shown_loss(loss))}  {rank:.2f}", "right" if left else "left"
        ax.text(end + (-away if left else away), height, text, ha=side, va="center", fontsize=9.5)
    said = ", ".join(f"{shown_loss(a)} {r:.2f}" for a, r in zip(losses, ranking.average_ranks, strict=True))
    caption = f"Average ranks over {ranking.blocks} settings"
    return drawn(picture, folder, name, caption, f"{caption}: {said}.")


def robustness_figure(
    counts: Mapping[str, Mapping[str, tuple[int, int]]], losses: Sequence[str], folder: Path, name: str
) -> Drawn:
    """Draw the share of cells above half of the best, a panel for each network, a bar for each loss.

    Args:
        counts: network → loss → (cells above, cells).
        losses: in their order.
        folder: for the SVG and the PDF.
        name: of these files.
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(min(12.0, 1.6 + 3.2 * len(counts)), 0.9 + 0.34 * len(losses)), layout="constrained")
    panels = picture.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    colour, parts = colours(losses), []
    for ax, (network, own) in zip(panels, counts.items(), strict=True):
        for row, loss in enumerate(losses):
            above, n = own.get(loss, (0, 0))
            share = above / n if n else 0.0
            ax.barh(row, share, height=0.66, color=colour[loss], alpha=0.85)
            ax.text(share + 0.02, row, f"{above} of {n}", va="center", fontsize=8.5)
            parts.append(f"{shown_network(network)}, {shown_loss(loss)} {above} of {n}")
        ax.set_title(shown(shown_network(network)), fontsize=10.5)
        ax.set_xlim(0, 1.2)
        ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        plain(ax)
    panels[0].set_yticks(range(len(losses)), [shown(shown_loss(loss)) for loss in losses])
    panels[0].set_ylim(len(losses) - 0.4, -0.6)
    said = f"Share of cells above half of the best: {'; '.join(parts)}."
    return drawn(picture, folder, name, "Cells above half of the best of their network", said)
