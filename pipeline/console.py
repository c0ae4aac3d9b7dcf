"""Where words for the user go: one console on standard error; standard output is left to results.

What is printed is data: names, paths and messages mean nothing but themselves, whatever brackets, colons or escape
sequences they hold. Styles come from templates of ours alone, which take the data as values (:func:`styled`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import Any, TypeVar

from rich import console as rich_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Span, Text

from rarevox.pipeline.words import clock, visible

T = TypeVar("T")

_PLACE = "\ufffc"
"""Stands for a value while a template is parsed."""


class Console(rich_console.Console):
    """A console to which every ``str`` is data, in tables and titles too: no markup, no emoji codes, no highlighting,
    control characters written out. Options are those of rich, without these four.

    >>> import sys
    >>> Console(file=sys.stdout).print("scan [/b] \\x1b[2J :dog:")
    scan [/b] \\x1b[2J :dog:
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Any string that rich comes upon, wherever it stands."""
        return super().render_str(visible(text), **options)

    def say(self, template: str, *values: object, soft_wrap: bool = True) -> None:
        """Print a styled line on one line, however long; see :func:`styled`."""
        self.print(styled(template, *values), soft_wrap=soft_wrap)


def styled(template: str, *values: object) -> Text:
    """A template of ours with rich's markup, its ``{}`` filled with values that are never parsed.

    Args:
        template: a literal, never put together from data (a test holds this).
        values: one for each ``{}`` or ``{:format}``. Line feeds in them are written out too: no name feigns a line.

    >>> text = styled("[red]failed[/red] {}: Dice {:.2f}", "[/b]", 0.5)
    >>> text.plain, text.spans
    ('failed [/b]: Dice 0.50', [Span(0, 6, 'red')])
    """
    parts = list(Formatter().parse(template))
    markup = "".join(said if name is None else said + _PLACE for said, name, _, _ in parts)
    text = Text.from_markup(markup, emoji=False)
    formats = [form or "" for _, name, form, _ in parts if name is not None]
    for value, form in zip(values, formats, strict=True):
        _fill(text, visible(format(value, form) if form else str(value)).replace("\n", r"\x0a"))
    return text


def _fill(text: Text, value: str) -> None:
    """Put a value into the first free place; spans over it and behind it follow."""
    at, grown = text.plain.index(_PLACE), len(value) - 1
    spans = [
        Span(span.start + grown * (span.start > at), span.end + grown * (span.end > at), span.style)
        for span in text.spans
    ]
    text.plain = text.plain.replace(_PLACE, value.replace(_PLACE, "\ufffd"), 1)
    text.spans = spans


console = Console(stderr=True, soft_wrap=True)


class PlainLines:
    """What stands for a progress bar where no terminal is: a line from time to time, as soon as a case more is done.

    Args:
        every_seconds: between lines; work that ends sooner says nothing.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self.description, self.total, self.done = "", 0, 0
        self._newest = 0.0
        self._before: deque[tuple[float, int]] = deque(maxlen=_LINES_OF_PACE)
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> PlainLines:
        self._before.append((time.monotonic(), 0))
        self._teller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._teller.join()

    def add_task(self, description: str, total: int) -> TaskID:
        """What is done, and in how many cases."""
        self.description, self.total = description, total
        return TaskID(0)

    def advance(self, _: TaskID) -> None:
        """A case more is done."""
        self.done, self._newest = self.done + 1, time.monotonic()

    def track(self, cases: Iterable[T], total: int, description: str) -> Iterator[T]:
        """The cases one by one; each is done when the next is asked for."""
        task = self.add_task(description, total)
        for case in cases:
            yield case
            self.advance(task)

    def line(self, now: float) -> str:
        """Cases done, of how many, and the time left at the pace of the last lines."""
        (began, before), done, newest = self._before[0], self.done, self._newest
        said = f"{self.description}: {done} of {self.total}"
        if done <= before:
            return said
        left = (self.total - done) * (newest - began) / (done - before) - (now - newest)
        return f"{said}, about {clock(left)} left"

    def _tell(self) -> None:
        told = -1
        while not self._ended.wait(self.every_seconds):
            if self.done > told and self.total:
                now, told = time.monotonic(), self.done
                console.print(self.line(now))
                self._before.append((now, told))


_LINES_OF_PACE = 4
"""Cases that an earlier call did pass in no time: the pace is that of the last lines alone."""


def progress_bar() -> Progress | PlainLines:
    """Tells of work that is counted in cases: ``with progress_bar() as bar: bar.track(cases, ...)``; a bar in a
    terminal, else lines."""
    if not console.is_terminal:
        return PlainLines()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
