"""What the pages of this package share: their templates and filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.figures import interval_text
from rarevox.pipeline.page import write_page

TEMPLATES = Path(__file__).with_name("templates")


def write_review(path: str | Path, template: str, *, title: str, **content: Any) -> Path:
    """Fill a template of this package and write it; see :func:`rarevox.pipeline.page.write_page`."""
    shared: dict[str, Any] = {"style": ("review.css",), "filters": {"mean": _mean}, "interval": interval_text}
    return write_page(path, TEMPLATES / template, title=title, **shared, **content)


def _mean(values: Sequence[float | None]) -> float:
    """The mean of the figures that are defined."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
