"""Reads the imports of the house and its orders in CONTRIBUTING.md, and says what contradicts them.

A *room* is a package (a folder); its *children* are its files and the rooms in it. An *arrow* is an import of one
module by another, at any depth of the code: in functions, for type checkers alone, and by a text that is a module's
name, which is how compiled kernels are imported. An *order* is a fenced block of CONTRIBUTING.md, floors from top to
bottom::

    ```text
    order of rarevox.pipeline
    cli
    demo | doctor
    data/ page
    ```

Each child of the room stands on one floor and imports floors below its own alone. Children that ``|`` parts do not
import one another. ``*`` stands for every child that is not named.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "rarevox"


@dataclass(frozen=True, order=True)
class Arrow:
    """An import: ``source`` and ``target`` are modules by their dotted names, ``line`` is where it stands."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """The modules of top-level folders by dotted name; a package's is that of its ``__init__.py``, the room's face."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join((NAME, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported or called by a dotted text; a relative import keeps its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(NAME + "."):
            yield node.lineno, node.value


def arrows(files: Mapping[str, Path]) -> list[Arrow]:
    """The imports of modules by one another; ``from package import name`` leads to the module if the name is one."""
    found = set()
    for source, path in files.items():
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            target = name if name in files else name.rpartition(".")[0]
            if target in files and target != source:
                found.add(Arrow(source, target, line))
    return sorted(found)


def misspelt(files: Mapping[str, Path], packages: Iterable[str]) -> list[str]:
    """Imports of our own that are not spelled ``rarevox.…``: relative ones, and ``import losses``."""
    bare, found = {*packages}, []
    for source, path in files.items():
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if name.startswith(".") or name.split(".")[0] in bare:
                found.append(f"{source}:{line} imports {name}; write {NAME}.…")
    return found


def read_orders(page: str) -> dict[str, list[list[list[str]]]]:
    """The orders of a page: room → floors from top to bottom → groups that do not import one another → children."""
    blocks = re.findall(r"^```text\norder of (\S+)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return {
        room: [[group.split() for group in line.split("|")] for line in text.splitlines() if line.strip()]
        for room, text in blocks
    }


def child(room: str, module: str) -> str:
    """The child of a room that a module in it belongs to; of the room's own face, ``__init__``."""
    return f"{module}.__init__".removeprefix(f"{room}.").split(".")[0]


def inside(room: str, module: str) -> bool:
    """Whether a module is in a room, as its face or at any depth."""
    return f"{module}.".startswith(f"{room}.")


def places(
    room: str, order: list[list[list[str]]], files: Mapping[str, Path]
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Child → (floor from the top, group), and what is wrong: children without a floor, names without a child.

    The room's face has no floor: it names what is in the room, and nothing in the room may import it.
    """
    children = {child(room, module) for module in files if inside(room, module)} - {"__init__"}
    folders = {name for name in children if files.get(f"{room}.{name}", Path()).name in ("", "__init__.py")}
    spelled = {name: f"{name}/" if name in folders else name for name in children}
    named = {name: (floor, g) for floor, groups in enumerate(order) for g, group in enumerate(groups) for name in group}
    count = sum(len(group) for groups in order for group in groups)
    wrong = [f"{room}: the order names a child twice"] if count != len(named) else []
    wrong += [f"{room}: the order names {name}, which is not there" for name in set(named) - {*spelled.values(), "*"}]
    found = {name: named[spelled[name]] for name in children if spelled[name] in named}
    if "*" in named:
        return dict.fromkeys(children, named["*"]) | found, wrong
    return found, wrong + [f"{room}: {spelled[name]} has no floor" for name in sorted(children - set(found))]


def upward(room: str, floors: Mapping[str, tuple[int, int]], known: Iterable[Arrow]) -> list[str]:
    """Arrows within a room that go up, across ``|``, or from inside to the room's face."""
    found = []
    for arrow in known:
        if not (inside(room, arrow.source) and inside(room, arrow.target)):
            continue
        source, target = child(room, arrow.source), child(room, arrow.target)
        if target == "__init__":
            found.append(f"{arrow}: the face of its own room")
        elif source in floors and target in floors and source != target:
            (floor, group), (other, side) = floors[source], floors[target]
            if other < floor or (other == floor and side != group):
                found.append(f"{arrow}: {'higher up' if other < floor else 'side by side'} in {room}")
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another (strongly connected, more than one node), sorted.

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    [['b', 'c']]
    """
    reached = {node: _reached(graph, node) for node in graph}
    groups = {
        tuple(sorted({node} | {n for n in around if node in reached.get(n, ())})) for node, around in reached.items()
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """What can be reached from a node by one step or more."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def file_circles(known: Iterable[Arrow]) -> list[list[str]]:
    """Circles between files."""
    graph: dict[str, set[str]] = {}
    for arrow in known:
        graph.setdefault(arrow.source, set()).add(arrow.target)
    return circles(graph)


def room_circles(files: Mapping[str, Path], known: Iterable[Arrow]) -> list[str]:
    """Circles between the children of a room, of every room: a folder counts as one, a file for itself."""
    listed, found = list(known), []
    for room in (name for name, path in files.items() if path.name == "__init__.py"):
        graph: dict[str, set[str]] = {}
        for arrow in listed:
            if inside(room, arrow.source) and inside(room, arrow.target):
                source, target = child(room, arrow.source), child(room, arrow.target)
                if source != target:
                    graph.setdefault(source, set()).add(target)
        for circle in circles(graph):
            found.append(f"{room}: {' ↔ '.join(circle)}")
    return found
