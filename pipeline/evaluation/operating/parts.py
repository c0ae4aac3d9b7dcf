"""What operating points and post-processing are chosen for: structures of their own, or nested regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.nested import by_depth
from rarevox.transforms.decision import Decision
from rarevox.transforms.nested import NestedDecision

Values = int | Sequence[int]
"""The label value of a structure, or those of a region."""


@dataclass(frozen=True)
class Parts:
    """The structures, or the nested regions, of a run.

    Attributes:
        structures: name → label value, in the order of the classes 1, 2, …; of nested regions name → label values, the
            outermost first.
        nested: whether they are nested regions.

    >>> Parts({"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}, nested=True).label_values
    [0, 2, 1, 4]
    >>> Parts({"a": 7, "b": 3}).label_values
    [0, 7, 3]
    """

    structures: Mapping[str, Values]
    nested: bool = False

    @property
    def label_values(self) -> list[int]:
        """Of each class, the background's 0 first; of nested regions of each depth, what a region has and the next one
        has not."""
        if not self.nested:
            return [0, *(value for value in self.structures.values() if isinstance(value, int))]
        return by_depth({name: (v,) if isinstance(v, int) else tuple(v) for name, v in self.structures.items()})

    def decision(self, points: Mapping[str, Any]) -> Decision:
        """How probabilities become labels with operating points."""
        return (NestedDecision if self.nested else Decision)(points, list(self.structures))

    def without(self, name: str) -> dict[str, Values]:
        """The others."""
        return {other: value for other, value in self.structures.items() if other != name}


def parts_of(config: Mapping[str, Any], data: Dataset) -> Parts:
    """What is chosen for: the nested regions that it learnt, or the dataset's structures."""
    if regions := config.get("regions"):
        return Parts({name: tuple(values) for name, values in regions.items()}, nested=True)
    return Parts(dict(zip(data.structures, data.label_values[1:], strict=True)))
