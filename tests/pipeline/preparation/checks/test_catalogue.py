"""The catalogue of checks: what the code raises, what the page documents and what the tests plant are one list."""

from __future__ import annotations

import re
from pathlib import Path

from rarevox.pipeline.preparation.checks.catalogue import CATALOGUE
from tests.pipeline.preparation.planted import PLANTS

ROOT = Path(__file__).parents[4]


def test_the_documentation_holds_the_catalogue() -> None:
    rows = [f"| `{entry.name}` | {entry.severity} | {entry.what} | {entry.fixed} |" for entry in CATALOGUE.values()]
    table = "\n".join(["| check | severity | what is wrong | `--fix` |", "|---|---|---|---|", *rows])
    assert table in (ROOT / "docs" / "prepare.md").read_text(encoding="utf-8")


def test_every_check_is_raised_somewhere_and_every_raised_one_is_listed() -> None:
    sources = [
        *(ROOT / "pipeline" / "preparation").rglob("*.py"),
        *(ROOT / "transforms" / "reading").glob("*.py"),
        ROOT / "transforms" / "reader.py",
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in sources if path.name != "catalogue.py")
    raised = set(re.findall(r'(?:fault\([^"]*?|Check\(|check=|note\()"([a-z0-9]+(?:-[a-z]+)+)"', text))
    unnamed = {"unreadable", "missing-label", "missing-mask", "missing-channel"}  # a default, and names put together
    assert raised <= set(CATALOGUE)
    assert set(CATALOGUE) - raised <= unnamed


def test_every_check_has_a_test_that_plants_its_fault() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    tests += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "transforms").glob("test_*.py"))
    assert set(PLANTS) <= set(CATALOGUE)
    for name in set(CATALOGUE) - set(PLANTS):
        assert f'"{name}"' in tests, name


def test_severities() -> None:
    assert {entry.severity for entry in CATALOGUE.values()} == {"error", "warning"}
