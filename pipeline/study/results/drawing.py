"""What the figures of a study share: colours and marks of the losses, axes, files."""

from __future__ import annotations

import base64
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rarevox.pipeline.files import atomic
from rarevox.pipeline.pictures import OKABE_ITO, figure_bytes
from rarevox.pipeline.study.results.paper import LOSSES, loss_name
from rarevox.pipeline.words import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = "osD^vP*Xh<>pd"
COLOURS = "viridis"
"""Of surfaces: alike for all readers, and rising in brightness too."""
GREY = "#7d8792"
_OF_PAPER = {"WCE": 1, "DL2": 5, "SS": 2, "GDLv": 0}
"""The paper's losses have their colours in every study."""


@dataclass(frozen=True)
class Drawn:
    """A figure that was written: its name, what it shows, the same in words, and itself as a base64 SVG."""

    name: str
    caption: str
    said: str
    svg: str


def drawn(figure: Figure, folder: Path, name: str, caption: str, said: str) -> Drawn:
    """Write a figure as ``NAME.svg`` and ``NAME.pdf`` into a folder, each whole or not at all."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # its places are found once for both files
    content = figure_bytes(figure, "svg")
    for kind, data in (("svg", content), ("pdf", figure_bytes(figure, "pdf"))):
        with atomic(folder / f"{name}.{kind}") as temporary:
            temporary.write_bytes(data)
    return Drawn(name, caption, said, base64.b64encode(content).decode("ascii"))


def colours(losses: Sequence[str]) -> dict[str, str]:
    """A colour for each loss: the paper's four have the same in every study, further ones those that are left.

    Where more are further than colours are left, all of these are grey: a colour that stands for several means nothing.

    >>> colours(["gdl", "dice"])
    {'gdl': '#0072B2', 'dice': '#009E73'}
    """
    present = {_OF_PAPER[loss_name(loss)] for loss in losses if loss_name(loss)}
    free = [i for i in (2, 5, 1, 3, 4, 7, 0) if i not in present] or list(range(len(OKABE_ITO)))
    others = [loss for loss in losses if not loss_name(loss)]
    own = [OKABE_ITO[i] for i in free] if len(others) <= len(free) else [GREY] * len(others)
    return {
        loss: OKABE_ITO[_OF_PAPER[loss_name(loss)]] if loss_name(loss) else own[others.index(loss)] for loss in losses
    }


def marks(losses: Sequence[str]) -> dict[str, str]:
    """A mark for each loss, so that they differ without colour; the paper's four have the same in every study."""
    others = [loss for loss in losses if not loss_name(loss)]
    return {
        loss: MARKS[(LOSSES.index(loss_name(loss)) if loss_name(loss) else 4 + others.index(loss)) % len(MARKS)]
        for loss in losses
    }


def plain(ax: Axes) -> None:
    """A light grid and no box."""
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=3, labelsize=8.5)


def shown(label: str, longest: int = 24) -> str:
    """A label on an axis: never a formula, control characters written out, cut where it is long.

    >>> shown("a$b$"), shown("x" * 30)
    ('a\\\\$b\\\\$', 'xxxxxxxxxxxxxxxxxxxxxxx…')
    """
    text = visible(label)
    return (text if len(text) <= longest else f"{text[: longest - 1]}…").replace("$", r"\$")


def power(value: float) -> str:
    """A number as matplotlib writes a power of ten, or plainly.

    >>> power(1e-4), power(3e-4)
    ('$10^{-4}$', '0.0003')
    """
    exponent = math.log10(value) if value > 0 else math.nan
    return f"$10^{{{round(exponent)}}}$" if abs(exponent - round(exponent)) < 1e-9 else f"{value:g}"


def slugs(labels: Sequence[str]) -> dict[str, str]:
    """A part of a file's name for each label, no two alike, nor where capitals do not count.

    >>> slugs(["highresnet", "a/b", "a b", "", "a_b_2", "A_B"])
    {'highresnet': 'highresnet', 'a/b': 'a_b', 'a b': 'a_b_2', '': 'all', 'a_b_2': 'a_b_2_2', 'A_B': 'A_B_3'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", label)[:60].strip("._") or "all"
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        found[label] = next(name for name in names if name.casefold() not in taken)
        taken.add(found[label].casefold())
    return found
