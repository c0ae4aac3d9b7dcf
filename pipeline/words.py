"""Words that others chose (names, paths, messages of errors), written so that each medium takes them as words.

Whatever a scan, a label, a folder or a bundle is called, its name does nothing to the reader's terminal, page, table or
document. Each medium has one function here, and one place that applies it:

=================  =================  ==========================================================================
medium             function           applied by
=================  =================  ==========================================================================
terminal           :func:`visible`    :class:`rarevox.pipeline.console.Console`, to all that it prints
log, warning       :func:`visible`    :func:`rarevox.pipeline.logs.show_logs_visibly`
page               :func:`visible`    :func:`rarevox.pipeline.page.write_page`, beside the escaping of HTML
CSV                :func:`cell`       :func:`csv_text`; :func:`csv_rows` reads such tables back
Markdown           :func:`markdown`   the model card
LaTeX              :func:`latex`      the tables of ``rarevox compare``
=================  =================  ==========================================================================
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1: a terminal obeys them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates that turn text around
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # separators of lines, marks and tags without a glyph
    "\ud800-\udfff]"  # halves of pairs: bytes of file names that are not UTF-8
)
_FORMULA = re.compile(r"[\s']*[=+\-@\t\r\n＝＋－＠]")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$#!@]|:(?=\S)|(?<=www)\.)")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def visible(text: str) -> str:
    """Text whose control characters are written out, so that a terminal shows them where it would obey them.

    Characters that turn the direction of writing are written out too, since they show a name as another one, and so are
    bytes of a file name that are not UTF-8. Tabs and line feeds stay.

    >>> print(visible("scan\\x1b[2J\\u202egz.iin"), visible("b\\udce4r"))
    scan\\x1b[2J\\u202egz.iin b\\xe4r
    """
    return _UNSEEN.sub(lambda found: _code(ord(found[0])), text)


def _code(point: int) -> str:
    if 0xDC80 <= point <= 0xDCFF:  # a byte that the file system's encoding left over (PEP 383)
        point -= 0xDC00
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def one_line(text: str) -> str:
    """Visible text on one line: whatever separates words becomes one space.

    >>> one_line("first\\n  second\\tthird")
    'first second third'
    """
    return visible(" ".join(text.split()))


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names parted by commas, the first ones where there are many.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: float, noun: str, plural: str = "") -> str:
    """A number before what it counts, one of it or several.

    Args:
        number: a whole one, or one that is written as short as it can be.
        noun: what one is called.
        plural: what several are called, where that is not ``noun`` with an s.

    >>> counted(1, "case"), counted(2, "case"), counted(0.5, "minute"), counted(2, "series", "series")
    ('1 case', '2 cases', '0.5 minutes', '2 series')
    """
    said = f"{number:g}" if isinstance(number, float) else f"{number}"
    return f"{said} {noun if number == 1 else plural or noun + 's'}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss.

    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    whole = max(round(seconds), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def cell(value: Any) -> Any:
    """A value as a CSV cell: visible text, with an apostrophe before what a spreadsheet would compute as a formula.

    Numbers are numbers, negative ones too. Text that has apostrophes before such a beginning gets one more, so that
    :func:`uncell` gives every visible text back.

    >>> cell("=1+1"), cell("-1"), cell(-1), cell("'=1"), cell("a=b")
    ("'=1+1", "'-1", -1, "''=1", 'a=b')
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) else text


def uncell(text: str) -> str:
    """The (visible) text that :func:`cell` was given.

    >>> uncell("'=1+1"), uncell("''=1"), uncell("'tis"), uncell("-1")
    ('=1+1', "'=1", "'tis", '-1')
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV table: a heading and a line for each row; what is None or missing is empty.

    >>> print(csv_text(["case", "dice"], [{"case": "@a", "dice": -0.5}, {"case": "b"}]), end="")
    case,dice
    '@a,-0.5
    b,
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    return buffer.getvalue()


def csv_writer(handle: TextIO) -> Callable[[Iterable[Any]], None]:
    """What writes one line of a CSV table after another, each cell by :func:`cell`; for tables that no memory holds.

    >>> import sys
    >>> _ = csv_writer(sys.stdout)(["=a", 1.5, None])
    '=a,1.5,
    """
    writer = csv.writer(handle, lineterminator="\n")

    def write(values: Iterable[Any]) -> None:
        writer.writerow([cell(value) for value in values])

    return write


def csv_rows(handle: TextIO) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the line and the cells of each row of a table that :func:`csv_text` wrote; a short row has fewer.

    >>> import io
    >>> list(csv_rows(io.StringIO("case,dice\\n'@a,-0.5\\n")))
    [(2, {'case': '@a', 'dice': '-0.5'})]
    """
    reader = csv.reader(handle)
    columns = [uncell(column) for column in next(reader, [])]
    for row in reader:
        if row:
            yield reader.line_num, dict(zip(columns, map(uncell, row), strict=False))


def markdown(text: str) -> str:
    """Text behind the beginning of a line of Markdown, where it is neither markup nor HTML, nor a link.

    >>> print(markdown("a_b|<b>"))
    a\\_b\\|&lt;b&gt;
    """
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", safe)


def latex(text: str) -> str:
    """Text within a line of LaTeX.

    >>> print(latex("a_b & 5 %"))
    a\\_b \\& 5 \\%
    """
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))
