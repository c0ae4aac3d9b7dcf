"""What every page has in common: one HTML file that opens offline, its look, its tables that sort, its last section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from rarevox.pipeline.figures import figure
from rarevox.pipeline.files import write_text

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
    """Fill a template and write the page, atomically; every text is escaped.

    Args:
        path: the ``.html`` file.
        template: a file that extends ``base.html``: blocks ``headline`` (under the title), ``content`` and ``how`` (the
            last section, with conventions and versions of ``result``). What it names lies beside it or in ``SHARED``.
        title: of the window and the heading.
        style: further style sheets beside the template.
        script: the scripts, one after the other.
        filters: of the template, beside ``figure``.
        content: what the template shows.
    """
    loader = jinja2.FileSystemLoader([template.parent, SHARED])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": figure, **(filters or {})}

    def read(names: Sequence[str]) -> str:
        return "".join(loader.get_source(environment, name)[0] for name in names)

    page = environment.get_template(template.name)
    html = page.render(title=title, style=read(("page.css", *style)), script=read(script), **content)
    write_text(path, html)
    return Path(path)
