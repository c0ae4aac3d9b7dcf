"""What others named is data in every medium: the few places that escape are the only ones that write."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PIPELINE = Path(__file__).parents[2] / "pipeline"
FILES = {path.relative_to(PIPELINE).as_posix(): path for path in sorted(PIPELINE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
MARKUP = re.compile(r"\[/?(red|green|yellow|blue|magenta|cyan|dim|bold|italic|underline)?\]|\[(red|yellow|dim|bold)\b")


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")), node


def _imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("name", FILES)
def test_templates_are_literals(name: str) -> None:
    for function, call in _calls(TREES[name]):
        if function in ("say", "styled") and name != "console.py":
            assert isinstance(call.args[0], ast.Constant), f"{name}:{call.lineno}: put data behind the template"


@pytest.mark.parametrize("name", FILES)
def test_only_templates_hold_markup(name: str) -> None:
    for function, call in _calls(TREES[name]):
        if function not in ("print", "add_row", "add_column", "Table"):
            continue
        texts = [
            node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert not [text for text in texts if MARKUP.search(text)], f"{name}:{call.lineno}: say() takes markup"


@pytest.mark.parametrize("name", FILES)
def test_one_module_for_the_terminal_and_one_for_tables(name: str) -> None:
    imported = _imported(TREES[name])
    assert "rich.markup" not in imported
    assert name == "console.py" or not imported & {"rich.console", "rich.print"}
    writers = [function for function, _ in _calls(TREES[name]) if function in ("writer", "DictWriter")]
    assert name == "words.py" or not writers


def test_pages_take_nothing_as_it_is_but_their_own_style_and_script() -> None:
    taken = {
        (path.name, found)
        for path in PIPELINE.rglob("templates/*.html")
        for found in re.findall(r"\{\{[^}]*\|\s*safe[^}]*\}\}|\bautoescape\b", path.read_text(encoding="utf-8"))
    }
    assert taken == {("base.html", "{{ style | safe }}"), ("base.html", "{{ script | safe }}")}


def test_scripts_put_no_text_into_pages_as_markup() -> None:
    for path in PIPELINE.rglob("templates/*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text())
