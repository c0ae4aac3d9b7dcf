"""Tables 2 and 3 in the paper's layout, with the paper's figures beside ours; as plain rows and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from rarevox.pipeline.study.results.outcomes import Outcome, Results
from rarevox.pipeline.study.results.paper import (
    NETWORKS_2D,
    NETWORKS_3D,
    SETTINGS,
    network_name,
    patch_name,
    shown_loss,
    shown_network,
    stated,
)
from rarevox.pipeline.study.results.verdict import mean
from rarevox.pipeline.words import latex

HEADINGS = {"patch": "Patch", "lr": "LR", "imbalance": "Imbalance"}


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        value: ours; NaN where there is none.
        spread: the interquartile range, where the table has one.
        paper: the paper's value and range, where it has one.
        state: ``done``, ``failed`` or ``pending``.
    """

    value: float = math.nan
    spread: float = math.nan
    paper: tuple[float, float] | None = None
    state: str = "pending"

    @property
    def text(self) -> str:
        """Ours as the paper writes it: median (interquartile range)."""
        if not math.isfinite(self.value):
            return {"failed": "failed", "pending": "…"}.get(self.state, "–")
        return dice_text(self.value, self.spread)

    @property
    def paper_text(self) -> str:
        """The paper's; empty where it has none."""
        return dice_text(*self.paper) if self.paper else ""


@dataclass(frozen=True)
class PaperTable:
    """Rows by patch, learning rate and whatever else is an axis; columns by network, then loss.

    Attributes:
        name: of its files.
        title: what it shows.
        row_roles: the axes of the rows.
        rows: their labels.
        columns: network and loss.
        entries: (row, column) → what stands there.
    """

    name: str
    title: str
    row_roles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, str], ...]
    entries: Mapping[tuple[tuple[str, ...], tuple[str, str]], Entry]

    @property
    def has_paper(self) -> bool:
        """Whether the paper has any of these figures."""
        return any(entry.paper for entry in self.entries.values())

    @property
    def networks(self) -> list[tuple[str, int]]:
        """Each network as it is shown, and how many columns it has."""
        names = [network for network, _ in self.columns]
        return [(shown_network(name), names.count(name)) for name in dict.fromkeys(names)]

    @property
    def losses(self) -> list[str]:
        """The loss of each column as it is shown."""
        return [shown_loss(loss) for _, loss in self.columns]

    def row(self, labels: tuple[str, ...]) -> list[Entry]:
        """The entries of a row."""
        return [self.entries[labels, column] for column in self.columns]


def dice_tables(results: Results) -> list[PaperTable]:
    """Training Dice, median (interquartile range): the paper's tables 2 and 3, and one of what the paper has not."""
    title = f"Training Dice over the last {results.last} iterations"
    found: list[PaperTable] = []
    others: list[str] = []
    for number, dimensions, networks in ((2, "2D", NETWORKS_2D), (3, "3D", NETWORKS_3D)):
        own = tuple(label for label in results.labels("network") if network_name(label) in networks)
        named = f"Table {number}, {dimensions}: {title[:1].lower()}{title[1:]}"
        table = _dice_table(results, f"table{number}", named, own) if own else None
        if table is not None and table.has_paper:
            found.append(table)
        else:
            others += own
    others += [label for label in results.labels("network") if not network_name(label)]
    return [*found, _dice_table(results, "training_dice", title, others)] if others else found


def _dice_table(results: Results, name: str, title: str, networks: Sequence[str]) -> PaperTable:
    return table_of(results, name, title, networks, lambda one: one.dice, lambda one: one.iqr, paper=True)


def heldout_table(results: Results) -> PaperTable | None:
    """Mean Dice of the held-out cases in the same layout; None where no cell has any."""
    if not any(math.isfinite(one.test) for one in results.outcomes):
        return None
    title, networks = "Dice of the held-out cases, mean", results.labels("network")
    return table_of(results, "test_dice", title, networks, lambda one: one.test, lambda one: math.nan)


def table_of(
    results: Results,
    name: str,
    title: str,
    networks: Sequence[str],
    value: Callable[[Outcome], float],
    spread: Callable[[Outcome], float],
    *,
    paper: bool = False,
) -> PaperTable:
    """A table of some networks; cells that differ in the seed alone count by the mean of their figures.

    Args:
        results: of the study.
        name: of the table's files.
        title: of the table.
        networks: labels of the columns' networks.
        value: the figure of a cell.
        spread: what stands in parentheses; NaN for nothing.
        paper: whether the paper has these figures.
    """
    roles = tuple(role for role in results.axes if role not in ("network", "loss", "seed"))
    rows = tuple(product(*(results.labels(role) for role in roles)))
    columns = tuple(product(networks, results.labels("loss")))
    places: dict[tuple[tuple[str, ...], tuple[str, str]], list[Outcome]] = {}
    for one in results.outcomes:
        key = tuple(one.label(role) for role in roles), (one.label("network"), one.label("loss"))
        places.setdefault(key, []).append(one)
    entries = {}
    for row, column in product(rows, columns):
        labels = dict(zip(roles, row, strict=True))
        patch, rate = (_papers(results, role, labels.get(role, "")) for role in ("patch", "lr"))
        theirs = stated(column[0], patch, column[1], rate) if paper else None
        entries[row, column] = _entry(places.get((row, column), []), value, spread, theirs)
    return PaperTable(name, title, roles, rows, columns, entries)


def _papers(results: Results, role: str, label: str) -> str:
    """The paper's label that a label of a scaled axis stands for; else the label itself."""
    return results.scaled.get(role, {}).get(label, label)


def _entry(
    here: Sequence[Outcome],
    value: Callable[[Outcome], float],
    spread: Callable[[Outcome], float],
    paper: tuple[float, float] | None,
) -> Entry:
    states = {one.state for one in here}
    state = next((state for state in ("done", "failed") if state in states), "pending")
    return Entry(mean([value(one) for one in here]), mean([spread(one) for one in here]), paper, state)


def share_rows(results: Results) -> list[dict[str, object]]:
    """Table 1: of each network and patch the sizes, the batch and the foreground share of the patches drawn.

    The share is the median over patches of each cell, and the mean of these over the cells.
    """
    rows: list[dict[str, object]] = []
    for network, patch, imbalance in product(*map(results.labels, ("network", "patch", "imbalance"))):
        cells = [one for one in results.where(network=network, patch=patch, imbalance=imbalance) if one.state == "done"]
        theirs = SETTINGS.get((network_name(network), patch_name(patch)))
        labels = {"network": shown_network(network), "patch": patch, "imbalance": imbalance}
        figures: dict[str, object] = {
            "effective": mean([one.patch for one in cells]),
            "batch": mean([one.batch for one in cells]),
            "share": mean([one.share for one in cells]),
            "constant": mean([one.constant for one in cells]),
            "paper_effective": theirs.effective if theirs else None,
            "paper_batch": theirs.batch if theirs else None,
            "paper_share": theirs.share if theirs else None,
        }
        rows.append({**{key: label for key, label in labels.items() if results.labels(key) != ("",)}, **figures})
    return rows


def table_rows(table: PaperTable) -> list[dict[str, object]]:
    """A row for each place of the table, for its CSV file."""
    rows: list[dict[str, object]] = []
    for row, column in product(table.rows, table.columns):
        entry = table.entries[row, column]
        labels = {"network": column[0], "loss": column[1], **dict(zip(table.row_roles, row, strict=True))}
        paper = entry.paper or (None, None)
        figures = {"value": entry.value, "iqr": entry.spread, "paper_value": paper[0], "paper_iqr": paper[1]}
        rows.append({**labels, "state": entry.state, **figures})
    return rows


def latex_table(table: PaperTable) -> str:
    r"""The table as a ``tabular`` for the package booktabs; the best figure of a row and network in bold.

    Where the paper has figures, each of our lines is followed by its line in ``\textit``.
    """
    width = len(table.row_roles)
    heads, rules, start = ["" for _ in table.row_roles], [], width + 1
    for network, count in table.networks:
        heads.append(f"\\multicolumn{{{count}}}{{c}}{{{latex(network)}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    lines = [
        f"% {latex(table.title)}",
        f"\\begin{{tabular}}{{{'l' * width}{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join(heads) + r" \\",
        "".join(rules),
        " & ".join([*(HEADINGS.get(role, latex(role)) for role in table.row_roles), *map(latex, table.losses)])
        + r" \\",
        "\\midrule",
    ]
    for labels in table.rows:
        entries = table.row(labels)
        best = best_of(table, labels)
        ours = [f"\\textbf{{{e.text}}}" if i in best else latex(e.text) for i, e in enumerate(entries)]
        lines.append(" & ".join([*map(latex, labels), *ours]) + r" \\")
        if table.has_paper:
            theirs = [f"\\textit{{{e.paper_text}}}" if e.paper else "" for e in entries]
            lines.append(" & ".join([*("" for _ in labels[:-1]), "\\textit{paper}", *theirs]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def best_of(table: PaperTable, labels: tuple[str, ...]) -> set[int]:
    """The columns of a row with the best figure of their network, as shown; none where all are 0 or one is alone."""
    found: set[int] = set()
    for network in dict.fromkeys(network for network, _ in table.columns):
        own = {
            i: round(table.entries[labels, column].value, 2)
            for i, column in enumerate(table.columns)
            if column[0] == network and math.isfinite(table.entries[labels, column].value)
        }
        top = max(own.values(), default=0.0)
        found |= {i for i, value in own.items() if value == top and top > 0 and len(own) > 1}
    return found


def dice_text(value: float, spread: float = math.nan) -> str:
    """A Dice with its range as in the paper.

    >>> dice_text(0.714, 0.17), dice_text(0.5)
    ('0.71 (0.17)', '0.50')
    """
    return f"{value:.2f} ({spread:.2f})" if math.isfinite(spread) else f"{value:.2f}"
