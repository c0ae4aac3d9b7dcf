"""Nested regions of a dataset: its labels and unions of them in a chain, such as whole tumour ⊃ core ⊃ enhancing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rarevox.pipeline.data.composites import Composites
from rarevox.pipeline.errors import RequestError, nearest

Region = tuple[int, ...]
_REMEDY = "declare the regions with prepare --structure NAME=VALUE+VALUE, or learn the labels (no --config regions)"


def nested_regions(
    labels: Mapping[str, int], composites: Composites, names: Sequence[str] | None = None
) -> dict[str, Region]:
    """The regions of a dataset as name → label values, the outermost first, each with one label more than the next.

    So a label is told by the regions that hold it, and label maps of any values come back as they were.

    Args:
        labels: name → value, with or without the background.
        composites: unions of them, name → values.
        names: the regions, unions and one label, in any order; None takes all unions and the label within the smallest
            of them: of its two the one with a name of its own (nnU-Net's datasets name the innermost region alone, the
            others are called ``label_VALUE`` here).

    Raises:
        RequestError: unknown names; no unions; two regions of which neither holds the other, or that are the same; a
            label in none of them; labels that none tells apart. Each with its names.

    >>> nested_regions({"label_2": 2, "label_7": 7, "hot": 250}, {"core": (7, 250), "whole": (2, 7, 250)})
    {'whole': (2, 7, 250), 'core': (7, 250), 'hot': (250,)}
    """
    known: dict[str, Region] = {name: (value,) for name, value in labels.items() if value != 0} | composites
    if names is None:
        chosen = dict(composites) | _innermost(labels, composites)
    else:
        for name in names:
            if name not in known:
                raise RequestError(f"learn: no structure is called {name!r}: {nearest(name, list(known))}")
        chosen = {name: known[name] for name in names}
    regions = dict(sorted(chosen.items(), key=lambda item: -len(item[1])))
    _require_chain(regions)
    _require_told_apart(regions, {value: name for name, value in labels.items() if value != 0})
    return regions


def _innermost(labels: Mapping[str, int], composites: Composites) -> dict[str, Region]:
    """The label within the smallest union that has a name of its own."""
    if not composites:
        raise RequestError(
            "the dataset has no unions of labels that could be nested regions; prepare it with for example "
            "--structure whole=1+2 beside the labels"
        )
    union, values = min(composites.items(), key=lambda item: len(item[1]))
    inside: dict[str, Region] = {name: (value,) for name, value in labels.items() if value in values}
    named = {name: value for name, value in inside.items() if name != f"label_{value[0]}"}
    if len(named) == 1:
        return named
    listed = " and ".join(f"{name} = {value[0]}" for name, value in inside.items())
    raise RequestError(
        f"the smallest region, {union}, holds {listed}, and which of them is the innermost region is not said; say it "
        f"by naming all regions: --set learn=[{', '.join([*composites, '…'])}]"
    )


def _require_chain(regions: Mapping[str, Region]) -> None:
    """Each region holds the next, and more."""
    listed = list(regions.items())
    for (outer, values), (inner, fewer) in pairwise(listed):
        if not set(fewer) < set(values):
            how = "hold the same labels" if set(fewer) == set(values) else "are not nested, neither holds the other"
            raise RequestError(f"the regions {outer} {list(values)} and {inner} {list(fewer)} {how}; {_REMEDY}")


def _require_told_apart(regions: Mapping[str, Region], labels: Mapping[int, str]) -> None:
    """Every label lies in some region, and no two lie in the same ones."""
    steps = [*map(set, regions.values()), set[int]()]
    outside = sorted(set(labels) - steps[0])
    if outside:
        name = next(iter(regions))
        raise RequestError(
            f"the label {labels[outside[0]]} = {outside[0]} lies in no region, the outermost being {name} "
            f"{list(regions[name])}; {_REMEDY}"
        )
    for values, fewer in pairwise(steps):
        alike = sorted(values - fewer)
        if len(alike) > 1:
            listed = " and ".join(f"{labels[value]} = {value}" for value in alike)
            raise RequestError(f"no region tells the labels {listed} apart; {_REMEDY}")


def by_depth(regions: Mapping[str, Region]) -> list[int]:
    """The label of each depth: 0, that of the outermost region alone, …, that of the innermost.

    >>> by_depth({"whole": (2, 7, 250), "core": (7, 250), "hot": (250,)})
    [0, 2, 7, 250]
    """
    steps = [*map(set, regions.values()), set[int]()]
    return [0, *(min(values - fewer) for values, fewer in pairwise(steps))]


def by_value(structures: Sequence[str], label_values: Sequence[int]) -> tuple[list[str], list[int]]:
    """Structures and label values of a configuration (the background's 0 among these alone) in a dataset's order.

    >>> by_value(["oedema", "necrosis"], [0, 2, 1])
    (['necrosis', 'oedema'], [0, 1, 2])
    """
    names = dict(zip(label_values[1:], structures, strict=True))
    return [names[value] for value in sorted(names)], sorted(label_values)
