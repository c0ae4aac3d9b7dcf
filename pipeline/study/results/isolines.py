"""Lines of equal Dice over learning rate and patch, interpolated linearly as in the paper's figures 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rarevox.pipeline.study.results.outcomes import Outcome, value_of

LEVELS = tuple(round(0.1 * k, 1) for k in range(1, 10))
BETWEEN = tuple(round(0.05 + 0.1 * k, 2) for k in range(10))
"""For a surface so flat that none of the levels lies in it."""


@dataclass(frozen=True)
class Surface:
    """Dice on a grid of learning rates and patches.

    Attributes:
        log_rates: log₁₀ of the learning rates, rising (R).
        patches: edges of the effective patches in voxels, rising (P).
        dice: (P, R); NaN where a cell has none.
        failed: (P, R), cells that failed; what has neither is pending.
    """

    log_rates: npt.NDArray[np.float64]
    patches: npt.NDArray[np.float64]
    dice: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]

    @property
    def drawable(self) -> bool:
        """Whether there is a grid: two rates and two patches at least, and some Dice."""
        return min(self.dice.shape) > 1 and bool(np.isfinite(self.dice).any())


def surface_of(outcomes: Sequence[Outcome], patches: Sequence[str], rates: Sequence[str]) -> Surface:
    """The surface of one loss on one network.

    Several cells at one place (seeds, further axes) count by the mean of their Dice. A patch whose cells are all to
    come, or failed, has no effective size yet and is left out, as are learning rates that are no number.

    Args:
        outcomes: the cells.
        patches: labels of the axis of patches.
        rates: labels of the axis of learning rates.
    """
    sizes = {label: _mean([one.patch for one in outcomes if one.label("patch") == label]) for label in patches}
    rows = sorted((size, label) for label, size in sizes.items() if np.isfinite(size))
    columns = sorted((value_of(label), label) for label in rates if value_of(label) > 0)
    dice, failed = np.full((len(rows), len(columns)), np.nan), np.zeros((len(rows), len(columns)), bool)
    for y, (_, patch) in enumerate(rows):
        for x, (_, rate) in enumerate(columns):
            here = [one for one in outcomes if one.label("patch") == patch and one.label("lr") == rate]
            dice[y, x] = _mean([one.dice for one in here])
            failed[y, x] = any(one.state == "failed" for one in here)
    log_rates = np.log10(np.array([value for value, _ in columns], float))
    return Surface(log_rates, np.array([size for size, _ in rows], float), dice, failed)


def isolines(surface: Surface, level: float) -> list[npt.NDArray[np.float64]]:
    """The lines on which the surface has a value, each (points, 2): log₁₀ of the learning rate, patch.

    Where a line crosses an edge of the grid is interpolated linearly between the two cells; within a square of the grid
    it is straight, as on the paper's figures. A square one of whose cells has no Dice is cut to the triangle of the
    other three; with two missing it has no line.

    A surface that rises with the rate alone: 0.5 is half way from 1e-4 to 1e-3 on the logarithmic axis.
        >>> flat = np.zeros((2, 2), bool)
        >>> rising = Surface(np.array([-4.0, -3.0]), np.array([15.0, 27.0]), np.array([[0, 1.0], [0, 1.0]]), flat)
        >>> sorted(isolines(rising, 0.5)[0].tolist())
        [[-3.5, 15.0], [-3.5, 27.0]]
    """
    from contourpy import contour_generator

    dice = np.ma.masked_invalid(surface.dice)
    lines = contour_generator(surface.log_rates, surface.patches, dice, corner_mask=True).lines(level)
    return [np.asarray(line, float) for line in lines]


def lines_of(surface: Surface) -> list[tuple[float, npt.NDArray[np.float64]]]:
    """The lines of a panel, each with its level: every tenth, or where the surface crosses none, what lies between.

    >>> flat = np.zeros((2, 2), bool)
    >>> high = Surface(np.array([-4.0, -3.0]), np.array([15.0, 27.0]), np.array([[0.71, 0.79], [0.71, 0.79]]), flat)
    >>> [level for level, _ in lines_of(high)]
    [0.75]
    """
    for levels in (LEVELS, BETWEEN):
        found = [(level, line) for level in levels for line in isolines(surface, level)]
        if found:
            return found
    return []


def _mean(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN without any."""
    known = [value for value in values if np.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")
