"""Names that come from elsewhere (structures, channels, cases, datasets): what they must not hold, and where it was."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from rarevox.pipeline.errors import RequestError

LONGEST_NAME, LONGEST_CASE = 120, 240
"""Bytes in UTF-8. A case's name becomes that of a file, for which file systems have 255, and a suffix is added."""

_MARKS = {
    "$": "which begins an expression in a configuration",
    "@": "which begins a reference in a configuration",
    "%": "which begins a macro in a configuration",
    "#": "which parts the keys of a configuration",
    "/": "which parts folders",
    "\\": "which parts folders",
}
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}
_BIDIRECTIONAL = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they turn around what is shown
_KEYWORD = re.compile(r"_\w*_")


def flaw(name: object, *, longest: int = LONGEST_NAME) -> str:
    r"""What is wrong with a name, as the end of a sentence; empty where nothing is.

    Names go into configurations, whose reader (MONAI's) gives meaning to some characters, into file names and onto
    terminals. What is refused has a meaning in one of them.

    >>> flaw("left kidney (T2*)"), flaw("../up")
    ('', "holds '/', which parts folders")
    >>> flaw("$x"), flaw("a\x1b[2J"), flaw(3)
    ("holds '$', which begins an expression in a configuration", "holds the control character '\\x1b'", 'is no text')
    """
    if not isinstance(name, str):
        return "is no text"
    if not name.strip():
        return "is empty"
    if name in (".", ".."):
        return "means a folder"
    for character in name:
        if character in _MARKS:
            return f"holds {character!r}, {_MARKS[character]}"
        if unicodedata.category(character) in _CONTROL or character in _BIDIRECTIONAL:
            return f"holds the control character {character!a}"
    if "::" in name:
        return "holds '::', which parts the keys of a configuration"
    if _KEYWORD.fullmatch(name):
        return "begins and ends with '_', as the keywords of a configuration do"
    if len(name.encode()) > longest:
        return f"is longer than {longest} bytes"
    return ""


def case_flaw(name: object) -> str:
    """The same of a case, whose name begins the names of files.

    >>> case_flaw("case_01.a"), case_flaw(".hidden")
    ('', "begins with '.', as hidden files do")
    """
    found = flaw(name, longest=LONGEST_CASE)
    return found or ("begins with '.', as hidden files do" if str(name).startswith(".") else "")


def check_names(names: Iterable[object], what: str, where: str | Path) -> None:
    """Refuse the first name that has a flaw.

    Args:
        names: of one kind.
        what: the kind, for the message: ``structure``, ``channel``.
        where: the file that has them, or the option.

    Raises:
        RequestError: says which name, which character and where.
    """
    for name in names:
        found = flaw(name)
        if found:
            raise RequestError(f"the name of a {what} in {where}, {shown(name)}, {found}; give it another one")


def plain_name(name: str) -> str:
    """A name for what is called after a folder: characters with a meaning of their own become ``_``.

    >>> plain_name("study #3"), plain_name("brain")
    ('study _3', 'brain')
    """
    kept = "".join("_" if flaw(f"a{character}a") else character for character in name).replace("::", "__")
    kept = kept.encode()[: LONGEST_NAME - len("data ")].decode(errors="ignore")
    return kept if not flaw(kept) else f"data {kept}".strip(" ._")


def shown(value: object) -> str:
    r"""A value for a message: on one line, at most 80 characters, nothing that a terminal takes for a command.

    >>> shown("a\x1b[2J")
    "'a\\x1b[2J'"
    """
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
