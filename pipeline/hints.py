"""Plain values of a configuration held against the annotations of what they are given to.

A text where a constructor is annotated to take a number, or a number where it takes what can be called, fails late and
far from its key: at the first case, in the words of a library. Here it is told by its key, before anything is built.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import functools
import inspect
import os
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from rarevox.pipeline.entries import locate
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.names import shown

_LISTS = (list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence, abc.Set)
_ANYTHING = (Any, object, inspect.Parameter.empty)
_NUMBERS = ("ndarray", "Tensor")
"""Classes that are made of numbers and lists."""
_TEXTUAL = ("device", "dtype")
"""Classes that libraries make of texts."""
_UNKNOWN = "$"
"""In place of what a reference does not find: whoever resolves it says so."""
BUILT = "an entry with _target_ or a reference (@)"


def check_hints(config: Mapping[str, Any]) -> None:
    """Refuse plain values that what they are given to is annotated not to take; a reference to one counts as it does.

    What is built or computed is left, and so is whatever has no annotation that says enough. Targets are imported:
    their configuration is one's own, or has passed the gate.

    Raises:
        RequestError: names the key, its value and what is taken there.

    >>> check_hints({"step": {"_target_": "torch.nn.Dropout", "p": 0.5}})
    >>> check_hints({"step": {"_target_": "torch.nn.Dropout", "p": "@share"}, "share": "much"})
    Traceback (most recent call last):
    rarevox.pipeline.errors.RequestError: share is 'much'; Dropout takes a number for p (step#p)
    """
    for key, value in config.items():
        _check(value, str(key), config)


def _check(value: object, place: str, config: Mapping[str, Any]) -> None:
    if isinstance(value, list):
        for number, part in enumerate(value):
            _check(part, f"{place}#{number}", config)
    elif isinstance(value, dict):
        target = value.get("_target_")
        taken = taken_by(target) if isinstance(target, str) else {}
        for name, given in value.items():
            _check(given, f"{place}#{name}", config)
            # What is built under a condition may not fit where the condition does not hold.
            key, found = _referred(given, f"{place}#{name}", {} if "_disabled_" in value else config)
            if name in taken and not fits(found, taken[name]):
                raise _refusal(str(target), name, key, found, taken[name], f"{place}#{name}")


def _refusal(target: str, name: str, key: str, value: object, hint: Any, place: str) -> RequestError:
    """Of a list in which one entry is wrong, that one is named."""
    where = "" if key == place else f" ({place})"
    if isinstance(value, list) and fits([], hint):
        number = next((n for n, one in enumerate(value) if not fits([one], hint)), None)
        if number is not None:
            key, value, hint = f"{key}#{number}", value[number], _of_entries(hint)
    built = target.rsplit(".", 1)[-1]
    return RequestError(f"{key} is {shown(value)}; {built} takes {words(hint)} for {name}{where}")


def _referred(value: object, place: str, config: Mapping[str, Any]) -> tuple[str, object]:
    """The key and the value that a reference leads to, where that is plain; a value that is none, as it is."""
    key, found = place, value
    for _ in range(len(config)):  # a circle is told by whoever resolves it
        if not (isinstance(found, str) and found.startswith("@")):
            return key, found
        key, inner = found[1:].replace("::", "#"), config
        for step in key.split("#"):
            inner = inner[int(step)] if isinstance(inner, list) and step.isdigit() and int(step) < len(inner) else inner
            inner = inner.get(step, _UNKNOWN) if isinstance(inner, Mapping) else inner
        found = inner
    return place, value


@functools.lru_cache(maxsize=512)
def taken_by(target: str) -> dict[str, Any]:
    """The annotated parameters of what a ``_target_`` builds, each with its type; none where it cannot be found.

    >>> taken_by("torch.nn.Dropout")["inplace"]
    <class 'bool'>
    """
    found = locate(target)
    function = found.__init__ if inspect.isclass(found) else found
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    named = (one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))
    hints = {one.name: (_evaluated(one.annotation, function), one.default) for one in named}
    return {name: hint | None if default is None else hint for name, (hint, default) in hints.items() if _says(hint)}


def _says(hint: object) -> bool:
    return hint not in _ANYTHING and (isinstance(hint, type) or get_origin(hint) is not None)


def _evaluated(hint: object, function: Callable[..., Any]) -> Any:
    """An annotation that is spelled as a text; None where it names what is imported for type checkers alone."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, getattr(inspect.unwrap(function), "__globals__", {}))  # the text of a function's own source
    except Exception:
        return None


def fits(value: object, hint: Any) -> bool:
    """Whether a plain value may be given where a type is annotated; in doubt it may.

    >>> fits(3, float), fits("a", float), fits([1, 2], tuple[int, int]), fits([1], tuple[int, int])
    (True, False, True, False)
    >>> fits(3, Callable[..., int]), fits("@loss", Callable[..., int]), fits(None, int | None)
    (False, True, True)
    """
    if (isinstance(value, str) and value[:1] in ("@", "$", "%")) or (isinstance(value, dict) and "_target_" in value):
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    kind = origin or hint
    if not isinstance(kind, type) or kind in _ANYTHING:
        return True
    return _fits_class(value, kind, inner)


def _fits_class(value: object, kind: type, inner: tuple[Any, ...]) -> bool:
    if kind is bool:
        return isinstance(value, bool) or value in (0, 1)
    if kind in (int, float, complex):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if kind is abc.Callable:
        return False
    if kind in _LISTS:
        return _fits_list(value, kind, inner)
    if kind.__name__ in _NUMBERS:
        return isinstance(value, (int, float, list))
    try:
        if isinstance(value, kind):
            return True
    except TypeError:  # a protocol
        return False
    textual = issubclass(kind, (enum.Enum, os.PathLike, type)) or kind.__name__ in _TEXTUAL
    return textual and isinstance(value, str)


def _fits_list(value: object, kind: type, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, str):  # a text is a sequence of texts
        return kind not in (list, tuple, set, frozenset) and (not inner or fits(value, inner[0]))
    if isinstance(value, dict) and kind in (abc.Iterable, abc.Collection):  # which are those of its keys
        value = list(value)
    if not isinstance(value, list):
        return False
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(one, inner[0]) for one in value)


def _of_entries(hint: Any) -> Any:
    """What the entries of a list may be."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        entries = [one for one in map(_of_entries, inner) if one is not Any]
        return Union[tuple(entries)] if entries else Any  # noqa: UP007, of as many as there are
    return inner[0] if origin in _LISTS and inner else Any


def words(hint: Any) -> str:
    """What a type takes, for a sentence.

    >>> words(float | None), words(tuple[int, int, int]), words(Callable[[int], int] | list[int])
    ('a number or null', 'a list of 3', 'an entry with _target_ or a reference (@) or a list')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return words(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    kind = origin or hint
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}"
    if kind in _LISTS:
        return "a list"
    return _WORDS.get(kind, BUILT)


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a mapping",
    abc.Mapping: "a mapping",
    type(None): "null",
    abc.Hashable: "a text",
}
