"""The post-processing that a file declares, for label maps of any tool: rules for labels, or for nested regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.data.nested import Region, by_depth
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures, foreground
from rarevox.pipeline.plain_data import read_yaml
from rarevox.transforms.clean import clean_labels, clean_regions, read_rules


@dataclass(frozen=True)
class Cleaning:
    """Post-processing by rules.

    Attributes:
        rules: label value → rules; of nested regions the number of the region, from 1 for the outermost on → rules.
        named: the same by name, for the result file.
        values: of nested regions the label of each depth, 0 first.
    """

    rules: Mapping[int, Mapping[str, Any]]
    named: Mapping[str, Mapping[str, Any]]
    values: Sequence[int] = ()

    def __call__(self, labels: np.ndarray, voxel_ml: float) -> np.ndarray:
        """A label map by the rules, in a new array."""
        if not self.values:
            return clean_labels(labels, self.rules, voxel_ml)
        # A depth's label need not be in this map, nor fit its type: what a region loses may be the first to have it.
        wide = np.result_type(labels.dtype, np.min_scalar_type(max(self.values)))
        return clean_regions(labels.astype(wide, copy=False), self.rules, self.values, voxel_ml)


def read_cleaning(declared: Any, file: str | Path | None, structures: Structures) -> Cleaning | None:
    """What a file declares: rules for single labels, not for unions; where it is a configuration with nested regions,
    for these, as a run that learnt them takes its rules.

    Args:
        declared: the rules by name.
        file: it holds them, and perhaps ``regions``.
        structures: those of the label maps, name → value or values.

    Returns:
        None where there are no rules.

    Raises:
        RequestError: rules of what is neither, or regions that are not nested or are not those of the structures.
    """
    regions = _regions(Path(file), structures) if file is not None and declared else {}
    single = {name: held[0] for name, held in foreground(structures, MetricOptions()).items() if len(held) == 1}
    numbers = {name: number for number, name in enumerate(regions, start=1)} or single
    try:
        rules = read_rules(declared, numbers)
    except ValueError as error:
        raise RequestError(str(error)) from error
    names = {number: name for name, number in numbers.items()}
    named = {names[number]: rule for number, rule in rules.items()}
    return Cleaning(rules, named, by_depth(regions) if regions else ()) if rules else None


def _regions(file: Path, structures: Structures) -> dict[str, Region]:
    """The nested regions of a configuration, the outermost first; none of other files.

    Raises:
        RequestError: they are not nested, or a structure has another label than they, or others than the region of its
            name.
    """
    content = read_yaml(file)
    declared = content.get("regions") if "post_processing" in content else None  # else it is a structure of that name
    if not declared:
        return {}
    regions = _labels_by_name(declared)
    steps = [*map(set, regions.values()), set[int]()]
    if not regions or any(len(outer - inner) != 1 or inner - outer for outer, inner in pairwise(steps)):
        raise RequestError(
            f"regions in {file} is {declared!r}; expected nested regions, the outermost first, each with one label "
            "more than the next, for example {whole: [1, 2], core: [2]}"
        )
    for name, held in foreground(structures, MetricOptions()).items():
        if set(held) - steps[0] or set(held) != set(regions.get(name, held)):
            raise RequestError(
                f"the rules in {file} are for the nested regions {', '.join(map(_text, regions, regions.values()))}, "
                f"and the structures to be scored have {_text(name, held)}; score those of that run, or give a file "
                "with rules for labels and without regions"
            )
    return regions


def _labels_by_name(declared: Any) -> dict[str, Region]:
    """Regions with their labels; nothing where they are declared in another form."""
    found = {}
    for name, held in declared.items() if isinstance(declared, Mapping) else ():
        labels = held if isinstance(held, list) else [held]
        if not all(type(label) is int and label > 0 for label in labels):
            return {}
        found[str(name)] = tuple(labels)
    return found


def _text(name: str, labels: Sequence[int]) -> str:
    return f"{name}={'+'.join(map(str, labels))}"
