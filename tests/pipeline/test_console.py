"""What is printed is data: brackets, emoji codes and escape sequences mean nothing, styles come from templates."""

from __future__ import annotations

import io
import time
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table

from rarevox.pipeline import console as module
from rarevox.pipeline.console import Console, PlainLines, progress_bar, styled
from rarevox.pipeline.words import visible

HOSTILE = (
    "[/b]",
    "[red]x",
    "[link=https://example.org]a[/link]",
    ":dog:",
    "\\",
    "a\\",
    "[",
    "]",
    "{}",
    "{0}",
    "\ufffc",
    "",
)


def _console(**options: object) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200, soft_wrap=True, **options), text


@pytest.mark.parametrize("name", HOSTILE[:-2])
def test_a_name_is_printed_as_it_is(name: str) -> None:
    console, text = _console()
    console.print(name)
    console.say("[red]failed[/red] {}: [dim]{}[/dim]", name, name)
    assert text.getvalue() == f"{name}\nfailed {name}: {name}\n"


def test_a_name_is_printed_as_it_is_in_tables_their_headings_and_titles() -> None:
    console, text = _console()
    for name in HOSTILE[:-2]:
        table = Table(name, title=name)
        table.add_row(f"<{name}>")
        console.print(table)
        assert text.getvalue().count(name) >= 3
        text.seek(0), text.truncate()


@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=5)), min_size=3, max_size=3))
def test_styles_cover_what_the_template_says_whatever_the_values(values: list[str]) -> None:
    text = styled("a [red]b {}[/red] {} [bold]{}", *values)
    one, two, three = (visible(v).replace("\n", r"\x0a").replace("\ufffc", "\ufffd") for v in values)
    assert text.plain == f"a b {one} {two} {three}"
    red, bold = 2 + 2 + len(one), len(f"a b {one} {two} ")
    found = {(span.start, span.end, str(span.style)) for span in text.spans if span.end > span.start}
    assert found == {(2, red, "red"), *([(bold, len(text.plain), "bold")] if three else [])}


def test_formats_and_numbers_of_values() -> None:
    assert styled("{:.2f} of {} {{}}", 0.256, 3).plain == "0.26 of 3 {}"
    with pytest.raises(ValueError, match="zip"):
        styled("{}")
    with pytest.raises(ValueError, match="zip"):
        styled("{}", 1, 2)


@pytest.mark.parametrize("terminal", [False, True])
def test_no_escape_sequence_of_a_name_reaches_the_terminal(terminal: bool) -> None:
    console, text = _console(force_terminal=terminal, color_system=None)
    evil = "\x1b]0;title\x07\x9b2J\r\b\u202e"
    console.print(evil, f"in {evil}")
    console.say("{}", evil)
    table = Table(evil, title=evil)
    table.add_row(evil)
    console.print(table)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task("fixed")
    shown = text.getvalue()
    assert "\\x1b]0;title\\x07\\x9b2J\\x0d\\x08\\u202e" in shown
    assert not set("\x07\x9b\b\u202e") & set(shown) and "\x1b]0" not in shown


def test_a_value_feigns_no_line() -> None:
    assert styled("failed {}", "a\nok b").plain == "failed a\\x0aok b"


def test_a_line_tells_the_time_left_at_the_pace_of_late() -> None:
    """Two cases in 20 s are 10 s a case: six are left for 60 s, of which 5 have passed."""
    lines = PlainLines()
    task = lines.add_task("predicting", 10)
    lines._before = deque([(100.0, 2)])
    lines.done = 2
    assert lines.line(110.0) == "predicting: 2 of 10"
    lines.advance(task), lines.advance(task)
    lines._newest = 120.0
    assert lines.line(125.0) == "predicting: 4 of 10, about 0:55 left"


def test_without_a_terminal_lines_come_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = _console()
    monkeypatch.setattr(module, "console", console)
    assert isinstance(progress_bar(), PlainLines)
    with PlainLines(every_seconds=0.001) as bar:
        for number, _ in enumerate(bar.track("abc", total=3, description="predicting [b]")):
            ends = time.monotonic() + 60  # against a hang
            while f"predicting [b]: {number} of 3" not in text.getvalue() and time.monotonic() < ends:
                time.sleep(0.001)
    told = [line for line in text.getvalue().splitlines() if ": 1 of 3" in line]
    assert len(told) == 1  # once, however long the next case takes
    assert told[0].endswith("left")
    with PlainLines() as quick:  # ends before its first line is due, and at once
        quick.advance(quick.add_task("checking", 1))
    assert "checking" not in text.getvalue()
