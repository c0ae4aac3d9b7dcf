"""Composite structures: unions of labels, such as whole tumour, that are scored but not learnt as classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rarevox.pipeline.errors import RequestError

Composites = dict[str, tuple[int, ...]]


def read_composites(declared: Any, labels: Mapping[str, int], where: str) -> Composites:
    """Composite structures as name → label values, checked.

    Args:
        declared: ``{name: [value, value, …]}``; None and an empty mapping are none.
        labels: the dataset's labels, name → value, with or without the background.
        where: what declares them, for the messages.

    Returns:
        In the order of declaration, the values ascending.

    Raises:
        RequestError: not a mapping of lists, a name that a label or the background has, fewer than two values, a value
            twice, or one that no label has (0, the background, is none).

    >>> read_composites({"whole": [2, 1]}, {"background": 0, "core": 1, "oedema": 2}, "dataset.json")
    {'whole': (1, 2)}
    """
    if not isinstance(declared or {}, Mapping):
        raise RequestError(f'{where} is {declared!r}; expected for example {{"whole": [1, 2, 3]}}')
    known = {value for value in labels.values() if value != 0}
    found: Composites = {}
    for name, values in (declared or {}).items():
        whole = isinstance(values, (list, tuple)) and all(type(value) is int for value in values)
        if not whole or len(values) < 2 or len(set(values)) < len(values):
            raise RequestError(f"{where}: {name} is {values!r}; expected two label values or more, each once")
        if name in labels or name == "background":
            raise RequestError(f"{where}: {name} is the name of a label; give the union another name")
        unknown = sorted(set(values) - known)
        if unknown:
            raise RequestError(
                f"{where}: {name} holds {', '.join(map(str, unknown))}, which no label has; labels are "
                f"{', '.join(f'{name} = {value}' for name, value in labels.items() if value != 0)}"
            )
        found[str(name)] = tuple(sorted(values))
    return found


def parse_structures(entries: Iterable[str]) -> dict[str, Any]:
    """``NAME=VALUE`` or ``NAME=VALUE+VALUE`` (a union) from the command line.

    Raises:
        RequestError: an entry of another form, or a name twice.

    >>> parse_structures(["core=1", "whole=1+2"])
    {'core': 1, 'whole': (1, 2)}
    """
    structures: dict[str, Any] = {}
    for entry in entries:
        name, _, values = entry.rpartition("=")
        if not name or not re.fullmatch(r"\d+(\+\d+)*", values):
            raise RequestError(
                f"--structure {entry!r} was not understood; write NAME=VALUE with the whole number of the label files, "
                "such as lesion=1, or NAME=1+2 for a union"
            )
        if name in structures:
            raise RequestError(f"--structure names {name!r} twice; give each structure once (NAME=1+2 is a union)")
        numbers = tuple(int(value) for value in values.split("+"))
        structures[name] = numbers if len(numbers) > 1 else numbers[0]
    return structures


def labels_and_unions(regions: Mapping[str, int | tuple[int, ...]]) -> tuple[dict[str, int], Composites]:
    """Labels and composites from names that stand for one value or several, as in nnU-Net's regions.

    A value that occurs in unions alone becomes a label called ``label_VALUE``; 0 is left out; a union of one value is
    a label.

    >>> labels_and_unions({"whole": (1, 2, 3), "core": (2, 3), "enhancing": 3})
    ({'label_1': 1, 'label_2': 2, 'enhancing': 3}, {'whole': (1, 2, 3), 'core': (2, 3)})
    """
    labels: dict[str, int] = {}
    unions: Composites = {}
    for name, region in regions.items():
        values = sorted({region} if isinstance(region, int) else set(region))
        if len(values) > 1:
            unions[name] = tuple(values)
        elif values and values[0] != 0:
            labels[name] = values[0]
    named = set(labels.values())
    labels |= {f"label_{value}": value for values in unions.values() for value in values if value not in named}
    return dict(sorted(labels.items(), key=lambda item: item[1])), unions
