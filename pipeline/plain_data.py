"""YAML and JSON from elsewhere, read as plain data within bounds: size, depth, and what aliases stand for."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import yaml

from rarevox.pipeline.errors import RequestError

DEEPEST = 64
"""Levels of nesting; the configurations of this project have nine."""
LARGEST_YAML, LARGEST_JSON = 1 << 20, 1 << 28
"""Bytes. The largest configuration has 15 kB, the list of 100 000 cases 30 MB."""
MOST_NODES = 100_000
"""Values in a YAML file, each alias counted as all that it stands for; the largest configuration has 2000."""


class _TooMuch(ValueError):
    """A bound was passed; the message is the end of a sentence."""


class _BoundedLoader(yaml.SafeLoader):
    """The safe loader, which counts while it composes: nothing deeper or larger than the bounds is ever built."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._count = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, its depth and its size noted."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name in self.anchors and name not in self._sizes:
                raise _TooMuch(f"the alias *{name} stands within what it stands for")
            self._add(self._sizes.get(name, 1))
            return super().compose_node(parent, index)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _TooMuch(f"it is nested deeper than {DEEPEST} levels")
        before = self._count
        self._add(1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if getattr(event, "anchor", None):
            self._sizes[str(event.anchor)] = self._count - before
        return node

    def _add(self, count: int) -> None:
        self._count += count
        if self._count > MOST_NODES:
            raise _TooMuch(f"it holds more than {MOST_NODES} values, its aliases written out")


def parse_yaml(text: str) -> Any:
    """Plain data from YAML text.

    Raises:
        ValueError: not YAML, or beyond the bounds; the message is the end of a sentence.

    >>> parse_yaml("a: [1, {b: null}]")
    {'a': [1, {'b': None}]}
    """
    try:
        return yaml.load(text, _BoundedLoader)
    except _TooMuch:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:  # ValueError: the 32nd of a month
        mark, where = getattr(error, "problem_mark", None), _one_line(error)
        if mark is not None and (problem := getattr(error, "problem", None)):
            where = f"line {mark.line + 1}, column {mark.column + 1}: {problem[:300]}"
        raise ValueError(f"it is not valid YAML: {where}") from error


def parse_json(text: str) -> Any:
    """Plain data from JSON text.

    Raises:
        ValueError: not JSON, or nested deeper than 64 levels; the message is the end of a sentence.

    >>> parse_json('{"a": [1]}')
    {'a': [1]}
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise _TooMuch(f"it is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # not JSON, or a number of more digits than Python reads
        raise ValueError(f"it is not valid JSON ({_one_line(error)})") from error
    _check_depth(content)
    return content


def _check_depth(content: object) -> None:
    """Level by level, for recursion is what the bound is to spare whoever reads on."""
    level = [content]
    for _ in range(DEEPEST):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level = below
        if not level:
            return
    raise _TooMuch(f"it is nested deeper than {DEEPEST} levels")


def read_text(path: str | Path, largest: int) -> str:
    """The text of an ordinary file of at most so many bytes.

    Raises:
        FileNotFoundError: there is none.
        RequestError: a folder, a pipe or a device, a larger file, or not UTF-8.
    """
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise RequestError(f"{path} is a folder, a pipe or a device; give a file")
    if status.st_size > largest:
        raise RequestError(f"{path} holds {status.st_size} bytes; such a file may have {largest}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text ({_one_line(error)}); write it again or restore it") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A configuration file (YAML or JSON); one without a key (all commented out) is empty.

    Raises:
        RequestError: missing, not readable as YAML, beyond the bounds, or not a mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give a YAML file")
    try:
        content = parse_yaml(read_text(path, LARGEST_YAML))
    except FileNotFoundError:
        raise RequestError(f"configuration file {path} does not exist") from None
    except ValueError as error:
        raise RequestError(f"{path} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RequestError(f"{path} must be a mapping of configuration keys, not {type(content).__name__}")
    for key in content:
        if not isinstance(key, str):
            raise RequestError(f"{path}: the key {key!r} is no text; put it in quotes, or correct it")
    return content


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
