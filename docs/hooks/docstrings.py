"""Docstrings as Markdown: references become links, examples become blocks of code. An extension of Griffe.

The docstrings are Google's style. What they take from reStructuredText is a role around a name, and an example that
stands at their end without a heading.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`~?([\w.]+)`")
EXAMPLE = re.compile(r"(?:^[ ]*(?:>>>|\.\.\.)(?: .*)?\n(?:^[ ]*(?!>>>|\.\.\.)\S.*\n)*)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring of a package once all of its names are known."""

    def on_package(self, *, pkg: griffe.Module, **options: Any) -> None:
        rewrite(pkg)


def rewrite(thing: griffe.Object) -> None:
    """Rewrite the docstrings of an object and of all in it."""
    if thing.docstring is not None:
        text = ROLE.sub(lambda found: link(thing, found[1]), thing.docstring.value)
        thing.docstring.value = fenced(text)
    for member in thing.members.values():
        if isinstance(member, griffe.Object):
            rewrite(member)


def link(thing: griffe.Object, name: str) -> str:
    """A link to what a name means where the object stands.

    A constant that has no description, and so no place in the reference, is plain code. A name that means nothing is
    left as a link to nowhere, which a strict build refuses.
    """
    try:
        path = thing.resolve(name)
    except griffe.NameResolutionError:
        path = name
    meant = thing.package.modules_collection.get_member(path) if path.startswith("rarevox.") else None
    documented = meant is None or meant.has_docstring or not meant.is_attribute
    return f"[`{name}`][{path}]" if documented else f"`{name}`"


def fenced(text: str) -> str:
    """Put examples between fences, as Markdown would take `>>>` for quotations."""

    def block(found: re.Match[str]) -> str:
        indent = found[0][: len(found[0]) - len(found[0].lstrip())]
        return f"{indent}```pycon\n{found[0]}{indent}```\n"

    return EXAMPLE.sub(block, text + "\n").rstrip("\n")
