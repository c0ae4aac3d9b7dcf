"""When a network counts as trained: above a Dice of 0.1, and above what marking every voxel would have had."""

from __future__ import annotations

from rarevox.pipeline.study.results.outcomes import Outcome

UNTRAINED, TRAINED = 0.1, 0.3
"""A median Dice under the first is that of a network that has not trained; one that trains reaches the second."""
MARGIN = 0.05
"""Of a difference of Dice, and of shares of cells, that counts."""


def earned(one: Outcome) -> float:
    """The Dice of a cell; 0 where it is not ahead, by ``MARGIN``, of marking every voxel on the same data.

    Where foreground fills half of a patch, who marks all of it has a Dice of 2/3 and has learnt nothing. Where that
    figure is not known, as of the paper's tables, the Dice stands as it is; NaN stays NaN.

    >>> [round(earned(Outcome("a", {}, dice=dice, constant=0.57)), 2) for dice in (0.585, 0.63)]
    [0.0, 0.63]
    >>> earned(Outcome("a", {}, dice=0.2))
    0.2
    """
    return 0.0 if one.dice < one.constant + MARGIN else one.dice
