"""The gate that a run's configuration passes before anything of it is built: our templates' words, and plain values.

A MONAI configuration is a program: ``_target_`` calls any function, ``$`` evaluates any expression, ``%`` takes in any
file. What a run from elsewhere may say is therefore held against the packaged configurations:

- a target is one that they build under the same top-level key;
- an expression or a reference is one of theirs under the same top-level key, letter by letter. What it refers to has
  passed the same gate under its own key, so that no combination means anything that they could not mean;
- an argument that they only build, compute or refer to is no text of one's own (MONAI takes some such texts for the
  dotted path of what to call);
- a text given to what is built is a word, or one of theirs: no dotted path, no path of files;
- keywords that change how things are built (``_mode_``, ``_requires_``, ``_debug_``) do not occur, but for the packaged
  files' ``_requires_: "@rarevox_installed"``, nor keys with ``#`` or ``::``, which would speak of other places.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.names import check_names, shown
from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.trust.earlier import brought_up
from rarevox.pipeline.trust.vocabulary import MARKS, TARGET, normal, vocabulary

_KEYWORDS = {TARGET, "_disabled_", "_desc_"}
_KEYWORD = re.compile(r"_\w*_")
_REQUIRES = ("_requires_", "@rarevox_installed")
_WORD = re.compile(r"[\w +-]*")
_TAKES_WORDS = ("rarevox.", "monai.networks.nets.", "torch.optim.")
"""Whose constructors take texts as names in tables of their own, never as what to import."""
REMEDY = "use --trust where you trust whoever wrote it"


class Refusal(RequestError):
    """Something that is not data, with the key and the value that say so."""


def run_config(run: Path, stage: str, *, trust: bool = False) -> dict[str, Any]:
    """The configuration of a run's stage, through the gate; one of an earlier version with the names of today.

    Args:
        run: the run folder.
        stage: ``train``, ``evaluate`` or ``inference``.
        trust: take whatever stands there; it is then as good as code of one's own.

    Raises:
        RequestError: missing or not readable, not the configuration of a run, or more than data.
    """
    path = run / "configs" / f"{stage}.yaml"
    config = brought_up(read_yaml(path), stage)
    _require_facts(config, path)
    if not trust:
        require_ours(config, path)
    return config


def require_ours(config: Mapping[str, Any], where: str | Path) -> None:
    """Refuse a configuration that says more than the packaged ones do.

    Raises:
        Refusal: the first key and value that they do not have.
    """
    for key, value in config.items():
        entry = _Entry(key, f"{where}", REMEDY)
        entry.check_key(key, str(key), value)
        entry.check(value, key)
    for what, key in (
        ("channel", "channels"),
        ("structure", "structures"),
        ("structure", "composites"),
        ("structure", "regions"),
    ):
        check_names(config.get(key) or (), what, where)


def require_plain(config: Mapping[str, Any], where: str | Path) -> None:
    """Refuse an overlay that is to be data, as a dataset's plan: no expression, no reference, only our own targets.

    Its keys may speak of what is within an entry (``normalisation#region``).

    Raises:
        Refusal: the first key and value that are more.
    """
    remedy = "give such an entry in a file of your own, with --config"
    for key, value in config.items():
        head, *inner = str(key).replace("::", "#").split("#")
        entry = _Entry(head, f"{where}", remedy, marked=False)
        entry.check_key(head if isinstance(key, str) else key, str(key), value)
        for number, step in enumerate(inner):
            if step == TARGET and number == len(inner) - 1:
                entry.check({TARGET: value}, head)
                break
            entry.check_key(step, str(key), value)
        else:
            entry.check(value, str(key), inside=bool(inner))


class _Entry:
    """The check of one top-level entry."""

    def __init__(self, key: object, where: str, remedy: str, *, marked: bool = True) -> None:
        self.where, self.remedy = where, remedy
        self.known = vocabulary().entry(str(key))
        self.marked = marked

    def refuse(self, place: str, value: object, why: str) -> Refusal:
        return Refusal(f"{self.where}: {place} is {shown(value)}: {why}; {self.remedy}")

    def check_key(self, key: object, place: str, value: object) -> None:
        """A key is a name."""
        if not isinstance(key, str):
            raise self.refuse(place, value, "a key is a text")
        keyword = _KEYWORD.fullmatch(key) and key not in _KEYWORDS and (key, value) != _REQUIRES
        if "#" in key or "::" in key or key.startswith(MARKS) or keyword:
            raise self.refuse(place, value, "no key of rarevox's own configurations is spelled so")

    def check(self, value: object, place: str, *, inside: bool = False) -> None:
        """A value outside of what is built, or, ``inside``, an argument that no template is held against."""
        if isinstance(value, dict):
            self._mapping(value, place)
        elif isinstance(value, list):
            for number, part in enumerate(value):
                self.check(part, f"{place}#{number}", inside=inside)
        elif isinstance(value, str):
            if value.startswith(MARKS):
                self._marked(value, place)
            elif inside and not _WORD.fullmatch(value):
                raise self.refuse(place, value, "an argument of what is built is a word or a number here")
        elif value is not None and not isinstance(value, (bool, int, float)):
            raise self.refuse(place, value, f"{type(value).__name__} is no plain value")

    def _marked(self, text: str, place: str) -> None:
        if not (self.marked and (normal(text) in self.known.marked or _is_literal(text))):
            raise self.refuse(place, text, "rarevox's own configurations have no such expression or reference here")

    def _mapping(self, value: dict[Any, Any], place: str) -> None:
        target = value.get(TARGET)
        if TARGET in value and (not isinstance(target, str) or target not in self.known.targets):
            raise self.refuse(f"{place}#{TARGET}", target, "rarevox's own configurations build nothing of it here")
        for key, inner in value.items():
            self.check_key(key, f"{place}#{key}", inner)
            if TARGET not in value:
                self.check(inner, f"{place}#{key}")
            elif key != TARGET:
                self._argument(str(target), key, inner, f"{place}#{key}")

    def _argument(self, target: str, name: str, value: object, place: str) -> None:
        """An argument of what is built: texts are words or the templates' own, and none where they have none."""
        known = vocabulary().arguments.get((target, name))
        if isinstance(value, list):
            for number, part in enumerate(value):
                self._argument(target, name, part, f"{place}#{number}")
        elif isinstance(value, dict) and TARGET not in value:
            for key, part in value.items():
                self.check_key(key, f"{place}#{key}", part)
                self._argument(target, name, part, f"{place}#{key}")
        elif isinstance(value, str) and not value.startswith(MARKS):
            words = target.startswith(_TAKES_WORDS) if known is None else not known.only_built
            if not (words and _WORD.fullmatch(value)) and value not in (known.texts if known else ()):
                raise self.refuse(place, value, f"{target} takes no such text for {name} here")
        else:
            self.check(value, place)


def _is_literal(text: str) -> bool:
    """Whether an expression is nothing but a text in quotes, as :func:`rarevox.pipeline.build.literal` writes them."""
    if not text.startswith("$") or set(text) & set("@%#"):
        return False
    try:
        return isinstance(ast.literal_eval(text[1:]), str)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _numbers(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(type(one) is int for one in value)


_FACTS = {
    "channels": (_texts, "a list of names"),
    "structures": (_texts, "a list of names"),
    "label_values": (_numbers, "a list of whole numbers, the background's first"),
    "composites": (lambda value: isinstance(value, dict), "a mapping"),
    "normalisation": (lambda value: isinstance(value, dict), "an entry with _target_"),
    "inferer": (lambda value: isinstance(value, dict), "an entry with _target_"),
    "device": (lambda value: isinstance(value, dict), "an entry with _target_"),
    "post_processing": (lambda value: isinstance(value, dict), "rules by structure"),
}
_EVALUATED = ("fold", "gates", "calibration", "metric_options")


def _require_facts(config: Mapping[str, Any], path: Path) -> None:
    """A run's configuration is complete: what later code reads of it is there, in the form that it reads."""
    for key in _FACTS:
        if key not in config:
            raise RequestError(f"{path} has no {key!r}; it is not what rarevox train wrote")
    require_forms(config, str(path))
    lacks = [key for key in _EVALUATED if key not in config] if path.stem == "evaluate" else []
    if lacks:
        raise RequestError(f"{path} has no {lacks[0]!r}; it is not what rarevox train wrote")


def require_forms(config: Mapping[str, Any], where: str) -> None:
    """Refuse a run's configuration in which what later code reads has another form than it reads.

    Args:
        config: of a run, complete.
        where: what is at fault: its file, or ``--set``.

    Raises:
        RequestError: names the key, its value and what is expected.
    """
    for key, (fits, words) in _FACTS.items():
        if not fits(config[key]):
            raise RequestError(f"{where}: {key} is {shown(config[key])}; expected {words}")
    regions = config.get("regions") or {}
    if not isinstance(regions, dict) or (regions and len(regions) != len(config["structures"])):
        raise RequestError(
            f"{where}: regions is {shown(regions)}; expected as many nested regions as structures, or none"
        )
    if len(config["label_values"]) != len(config["structures"]) + 1:
        raise RequestError(f"{where}: label_values must be one more than structures, for the background")
