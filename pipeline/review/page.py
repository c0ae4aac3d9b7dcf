"""What the pages of this package share: filters, and pictures as SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.figures import interval_text
from rarevox.pipeline.page import write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).with_name("templates")


def write_review(path: str | Path, template: str, *, title: str, **content: Any) -> Path:
    """Fill a template of this package and write it; see :func:`rarevox.pipeline.page.write_page`."""
    shared: dict[str, Any] = {"style": ("review.css",), "filters": {"mean": _mean}, "interval": interval_text}
    return write_page(path, TEMPLATES / template, title=title, **shared, **content)


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
