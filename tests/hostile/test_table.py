"""The table of kinds on the page is the one that the batches are held to."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.expected import table
from tests.hostile.kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "trust.md"


def test_the_page_holds_the_table_of_kinds() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), (
        "python -m tests.hostile.expected prints the table for docs/trust.md"
    )


def test_every_kind_has_a_row_and_says_why_it_is_refused() -> None:
    assert table().count("\n") == len(KINDS) + 1
    assert all(kind.says for kind in KINDS.values() if kind.outcome != "read")
