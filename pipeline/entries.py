"""Entries of a configuration: named by a key, set or merged only where something asks for them."""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.plain_data import parse_yaml

MOST_NAMED, MOST_MEANT = 12, 3
"""Valid keys that a message lists, and keys deeper within that may be meant."""
OPEN = ("gates", "post_processing", "operating_points")
"""Mappings by structure, whose inner keys a setting may add; whoever reads them checks the names."""


def parse_setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` with the value read as YAML (and 1e-4 as the number it is).

    >>> parse_setting("optimizer#lr=1e-4"), parse_setting("patch_size=[32, 32, 32]")
    (('optimizer#lr', 0.0001), ('patch_size', [32, 32, 32]))

    Raises:
        RequestError: no ``=``, or a value that is not YAML.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise RequestError(f"--set {text} is not KEY=VALUE; for example --set optimizer#lr=1e-4")
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise RequestError(f"--set {text}: the value is not valid YAML; put it in quotes") from error
    if isinstance(parsed, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", parsed):
        parsed = float(parsed)
    return key.strip().replace("::", "#"), parsed


def regions_of(normalisation: object) -> set[str]:
    """Over which voxels a normalisation, or the steps of a chain of them, take what they go by.

    >>> sorted(regions_of({"_target_": "Compose", "transforms": [{"region": "mask"}, {"_target_": "a.B"}]}))
    ['mask']
    """
    if not isinstance(normalisation, Mapping):
        return set()  # a reference to something of the user's own says nothing here
    steps = normalisation.get("transforms")
    own = {str(normalisation["region"])} if "region" in normalisation else set()
    return own.union(*map(regions_of, steps if isinstance(steps, list) else ()))


def put(config: dict[str, Any], key: str, value: object, where: str = "") -> None:
    """Set ``a#b#0`` in nested mappings and lists, refusing a key that does not exist.

    Inside a component (``_target_``) the arguments of what it builds may be added; elsewhere only what is there may
    be replaced.

    Args:
        config: changed in place.
        key: names of mappings and numbers of list entries.
        value: goes there.
        where: the file that says so, for the messages; empty for the command line.

    Raises:
        RequestError: no such key; the nearest valid one is given.
    """
    said = f"{where}: " if where else ""
    place: Any = config
    *path, last = key.split("#")
    is_open = bool(path) and path[0] in OPEN and path[0] in config
    for step in path:
        if is_open and isinstance(place, dict):
            place.setdefault(step, {})
        place = _step(place, step, key, said, config)
    if isinstance(place, list):
        place[_index(place, last, key, said)] = value
        return
    if not isinstance(place, dict):
        raise RequestError(f"{said}{key}: {'#'.join(path)} is a single value and has nothing inside; set it whole")
    if last not in place and not is_open:
        known = set(place) | arguments(place)
        if last not in known and "**" not in known:
            names = {name for name in known if not name.startswith("_")}
            raise RequestError(f"{said}no configuration key {key!r}: {_meant(config, key, last, names)}")
    place[last] = value


def _meant(config: Mapping[str, Any], key: str, wrong: str, names: Iterable[str]) -> str:
    """Which key may be meant: keys deeper within whose last part is that of ``key``, else the nearest name.

    >>> _meant({"optimizer": {"lr": 0.1}, "learn": None}, "lr", "lr", ["optimizer", "learn"])
    "did you mean 'optimizer#lr'?"
    """
    last = key.split("#")[-1]
    found = [path for path in _paths(config) if path[-1] == last and len(path) > 1]
    if not found or last.isdigit():
        return nearest(wrong, names, MOST_NAMED)
    nearby = sorted(("#".join(path) for path in found), key=lambda text: (text.count("#"), text))
    more = f" ({len(nearby) - MOST_MEANT} more end so)" if len(nearby) > MOST_MEANT else ""
    return f"did you mean {' or '.join(map(repr, nearby[:MOST_MEANT]))}{more}?"


def _paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The ways to all entries of nested mappings and lists."""
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in entries:
        here = (*path, str(name))
        yield here
        yield from _paths(inner, here)


def _step(place: Any, step: str, key: str, said: str, config: Mapping[str, Any]) -> Any:
    """One level into a mapping or a list."""
    if isinstance(place, dict) and step in place:
        return place[step]
    if isinstance(place, list):
        return place[_index(place, step, key, said)]
    known = place if isinstance(place, dict) else []
    raise RequestError(f"{said}no configuration key {key!r}: {_meant(config, key, step, known)}")


def _index(place: list[Any], step: str, key: str, said: str) -> int:
    if not step.isdigit() or int(step) >= len(place):
        raise RequestError(f"{said}no configuration key {key!r}: the list there has entries 0 to {len(place) - 1}")
    return int(step)


def arguments(component: Mapping[str, Any]) -> set[str]:
    """Names of the arguments of what ``_target_`` builds; ``**`` where it takes any."""
    target = component.get("_target_")
    if not isinstance(target, str):
        return set()
    found = locate(target)
    if found is None:
        return {"**"}
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return {"**"}
    return {"**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters}


def locate(target: str) -> Any:
    """What a ``_target_`` names: a dotted path, or a name of MONAI's own."""
    if "." in target:
        return pydoc.locate(target)
    from monai.bundle.config_item import ComponentLocator

    path = ComponentLocator().get_component_module_name(target)
    module = path[0] if isinstance(path, list) else path
    return pydoc.locate(f"{module}.{target}") if module else None


def merge(config: dict[str, Any], addition: Mapping[str, Any], where: str) -> None:
    """Merge an overlay: plain keys replace or add, ``a#b`` goes inside; an added key must be used by some reference.

    Raises:
        RequestError: a key that neither exists nor is referred to; the nearest valid one is given.
    """
    text = str(config) + str(addition)
    known = set(config)
    for key, value in addition.items():
        if "#" in key or "::" in key:
            put(config, key.replace("::", "#"), value, where)
        elif key in known or re.search(rf"[@%]{re.escape(key)}(?![\w])", text):
            config[key] = value
        else:
            raise RequestError(f"{where}: no configuration key {key!r}: {_meant(config, key, key, known)}")
