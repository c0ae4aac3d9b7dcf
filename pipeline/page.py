"""What every page has in common: one HTML file that opens offline, its look, its tables that sort, its last section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from rarevox.pipeline.figures import figure
from rarevox.pipeline.files import finite, write_text
from rarevox.pipeline.words import counted, visible

SHARED = Path(__file__).with_name("templates")
"""``base.html``, which each page extends, ``page.css`` and ``page.js``."""


def write_page(
    path: str | Path,
    template: Path,
    *,
    title: str,
    style: Sequence[str] = (),
    script: Sequence[str] = ("page.js",),
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **content: Any,
) -> Path:
    """Fill a template and write the page, atomically; every text is escaped, control characters are shown.

    Args:
        path: the ``.html`` file.
        template: a file that extends ``base.html``: blocks ``headline`` (under the title), ``content`` and ``how`` (the
            last section, with conventions and versions of ``result``). What it names lies beside it or in ``SHARED``.
        title: of the window and the heading.
        style: further style sheets beside the template.
        script: the scripts, one after the other.
        filters: of the template, beside ``figure``, ``counted`` and ``json`` (data for a script, which cannot end its
            element).
        content: what the template shows.
    """
    loader = jinja2.FileSystemLoader([template.parent, SHARED])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "counted": counted, "json": _json, **(filters or {})}

    def read(names: Sequence[str]) -> str:
        return "".join(loader.get_source(environment, name)[0] for name in names)

    page = environment.get_template(template.name)
    html = page.render(title=title, style=read(("page.css", *style)), script=read(script), **content)
    write_text(path, html)
    return Path(path)


def _shown(value: Any) -> Any:
    """What the page says instead of a value: text with its control characters and turns of direction written out."""
    if isinstance(value, Markup):
        return Markup(visible(value))  # made of words alone: nothing that visible writes needs escaping
    return visible(value) if isinstance(value, str) else value


def _json(content: object) -> Markup:
    """Data within a script: as JSON in which no character can end the script or begin a comment or a tag."""
    return htmlsafe_json_dumps(_plain(content))


def _plain(content: object) -> Any:
    """Data that JSON can hold, with the same words as the rest of the page."""
    if isinstance(content, Mapping):
        return {_shown(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return _shown(finite(content))
