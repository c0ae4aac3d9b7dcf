"""What the pages of this package share: the look of the other reports, pictures as SVG, one file that opens offline."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from pipeline.evaluation.report import TEMPLATES as LOOK
from pipeline.evaluation.results_table import figure, interval_text
from pipeline.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).with_name("templates")


def write_page(path: str | Path, template: str, **content: Any) -> Path:
    """Fill a template of this package and write it, atomically; every text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "mean": _mean}
    style, script = ((LOOK / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    html = environment.get_template(template).render(style=style, script=script, interval=interval_text, **content)
    write_text(path, html)
    return Path(path)


def _mean(values: Sequence[float | None]) -> float:
    """The mean of the figures that are defined."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def svg(figure: Figure) -> str:
    """A figure as a base64 SVG, the same bytes for the same figure."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "rarevox", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
