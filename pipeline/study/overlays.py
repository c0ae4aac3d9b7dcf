"""What a label of an axis lays over the templates: networks, losses, configurations, single settings."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import CONFIGS, PLAN_FILE, packaged
from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.plain_data import read_yaml

NAMES = ("network", "loss", "dataset")
NUMBERS = ("iterations", "fold")
BUDGETS = {"iterations", "minutes"}
"""Of a cell one: minutes would count alone."""
OVERLAY_KEYS = (*NAMES, *NUMBERS, "minutes", "config", "settings", "by")
Overlay = dict[str, Any]
"""Normal form: ``network``, ``loss``, ``dataset`` (names), ``iterations``, ``fold``, ``minutes`` (numbers), ``config``
(a list), ``settings`` (key to value), ``by`` (axis to label to overlay); what is not there is not set."""

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def configuration_keys() -> set[str]:
    """The top-level keys of a training's configuration."""
    return {*packaged(CONFIGS / "common.yaml"), *packaged(CONFIGS / "train.yaml")}


def plain(value: Any) -> Any:
    """A value of a study file, texts such as 1e-4 as the numbers that they are meant to be (YAML has them as texts).

    >>> plain({"lr": "1e-4", "name": "1e"})
    {'lr': 0.0001, 'name': '1e'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"a study file holds {value}; expected numbers that are finite")
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else value
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)  # YAML knows dates


def read_overlay(content: Any, where: str) -> Overlay:
    """An overlay in its normal form.

    Beside its own keys it may hold configuration keys (``patch_size``, ``optimizer#lr``), which then are settings.

    Args:
        content: what the study file has there.
        where: the words for it in messages.

    Raises:
        RequestError: no mapping, an unknown key (the nearest is named), or a value of a wrong kind.

    >>> read_overlay({"network": "unet2d", "patch_size": [56, 56, 1]}, "base")
    {'network': 'unet2d', 'settings': {'patch_size': [56, 56, 1]}}
    """
    if not isinstance(content, Mapping):
        raise RequestError(f"{where} is {content!r}; expected a mapping such as {{loss: gdl}}")
    found: Overlay = {}
    known = configuration_keys()
    content = plain(content)
    if isinstance(content.get("settings"), dict):  # what has a place of its own is found there alone
        own = {key: content["settings"].pop(key) for key in (*NUMBERS, "minutes") if key in content["settings"]}
        content = own | content
    for key, value in content.items():
        head = key.partition("#")[0]
        if key in NAMES:
            found[key] = _checked(value, str, f"{where}: {key}", "a name")
        elif key in NUMBERS:
            found[key] = _checked(value, int, f"{where}: {key}", "a whole number")
        elif key == "minutes":
            found[key] = float(_checked(value, (int, float), f"{where}: {key}", "a number"))
        elif key == "config":
            found[key] = [_checked(one, str, f"{where}: {key}", "names of files") for one in _listed(value)]
        elif key == "settings":
            found.setdefault("settings", {}).update(_checked(value, dict, f"{where}: {key}", "keys and values"))
        elif key == "by":
            found[key] = _by(value, where)
        elif head in known:
            found.setdefault("settings", {})[key] = value
        else:
            raise RequestError(f"{where}: no key {key!r}: {nearest(head, {*OVERLAY_KEYS, *known})}")
    return found


def _by(content: Any, where: str) -> dict[str, dict[str, Overlay]]:
    found: dict[str, dict[str, Overlay]] = {}
    for axis, labels in _checked(content, dict, f"{where}: by", "an axis and what each of its labels means").items():
        _checked(labels, dict, f"{where}: by {axis}", "what each label of that axis means")
        found[axis] = {label: read_overlay(one, f"{where}, by {axis} {label}") for label, one in labels.items()}
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _checked(value: Any, kind: type | tuple[type, ...], where: str, words: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestError(f"{where} is {value!r}; expected {words}")
    return value


def laid_over(below: Overlay, above: Overlay, labels: Mapping[str, str], where: str) -> Overlay:
    """One overlay over another: names and numbers replace, ``config`` is appended, settings replace one by one.

    A budget in steps replaces one in minutes too, and the other way round.

    Args:
        below: changed neither.
        above: its ``by`` is followed for the labels of the cell.
        labels: axis to label.
        where: for the messages.

    Raises:
        RequestError: ``by`` names no axis of the study, or lacks the cell's label.

    >>> laid_over({"config": ["paper"]}, {"by": {"network": {"A": {"config": ["ema"]}}}}, {"network": "A"}, "patch S")
    {'config': ['paper', 'ema']}
    >>> laid_over({"minutes": 12.0}, {"iterations": 500}, {}, "steps 500")
    {'iterations': 500}
    """
    found = dict(below)
    if BUDGETS & above.keys():
        found = {key: value for key, value in found.items() if key not in BUDGETS}
    for key, value in above.items():
        if key == "config":
            found[key] = [*found.get(key, ()), *value]
        elif key == "settings":
            found[key] = {**found.get(key, {}), **value}
        elif key != "by":
            found[key] = value
    for axis, choices in above.get("by", {}).items():
        if axis not in labels:
            raise RequestError(f"{where}: by {axis!r}, which is no axis: {nearest(axis, labels)}")
        if labels[axis] not in choices:
            raise RequestError(
                f"{where}: by {axis} says nothing for {labels[axis]!r} ({', '.join(choices)} are there); "
                "write {} where nothing is to be changed"
            )
        found = laid_over(found, choices[labels[axis]], labels, f"{where}, by {axis} {labels[axis]}")
    return found


def file_of(name: str, folder: Path) -> str:
    """A configuration named by a study file: an overlay's name, or a file, relative to the study file's folder."""
    return name if not Path(name).suffix else str((folder / name).resolve())


def contents_of(settings: Iterable[Mapping[str, Any]], datasets: Iterable[str] = ()) -> dict[str, str]:
    """What the users' configuration files of cells say, and the plans of their datasets: the file to the SHA-256 of its
    entries, comments not counted.

    Files alone, in which a change that nobody means to tell of is easily made. The overlays that are named belong to
    rarevox: they change with its code, whose version stands in every row.

    Args:
        settings: of the cells.
        datasets: their folders, with a ``plan.yaml`` or without.

    Raises:
        RequestError: a file is missing, or not YAML.
    """
    named = dict.fromkeys(name for one in settings for name in one.get("config", ()))
    own = [name for name in named if Path(name).suffix or Path(name).is_file()]
    own += [str(plan) for plan in (Path(folder) / PLAN_FILE for folder in datasets) if plan.is_file()]
    said = {name: json.dumps(_with_text_keys(read_yaml(name)), sort_keys=True, default=str) for name in own}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in said.items()}


def _with_text_keys(content: Any) -> Any:
    """YAML's keys may be of any kind, and JSON sorts those of one kind alone.

    >>> _with_text_keys({"names": {1: "a", "b": ["c", {True: None}]}})
    {'names': {'int 1': 'a', 'b': ['c', {'bool True': None}]}}
    """
    if isinstance(content, Mapping):
        return {
            key if isinstance(key, str) else f"{type(key).__name__} {key}": _with_text_keys(value)
            for key, value in content.items()
        }
    return [_with_text_keys(value) for value in content] if isinstance(content, list) else content
