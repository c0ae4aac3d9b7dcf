"""``summary.html``: a cohort on one page, however large it is."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rarevox.pipeline.cohort.rows import place
from rarevox.pipeline.cohort.statistics import FAR, LEAST_SCANS, Outlier, Reasons, Statistics, Volumes
from rarevox.pipeline.figures import round_ticks
from rarevox.pipeline.page import write_page

TEMPLATE = Path(__file__).with_name("templates") / "summary.html"
MOST_OUTLIERS, MOST_THUMBNAILS, MOST_REASONS = 50, 12, 50
SMALL = 420
"""Pixels of the longer edge of a preview on the page."""


def write_summary(
    path: Path,
    folder: Path,
    statistics: Statistics,
    header: Mapping[str, Any],
    row_of: Callable[[str], Mapping[str, Any]],
    tables: Sequence[str] = (),
) -> Path:
    """Write the page: counts, failures and warnings by reason, distributions of volumes, outliers with thumbnails.

    Args:
        path: of the page.
        folder: of the predictions.
        statistics: of all rows.
        header: how the maps were made.
        row_of: a scan's row, for its files.
        tables: files beside the page.
    """
    outliers = statistics.outliers(MOST_OUTLIERS)
    warnings = _reasons(statistics.warnings)
    shown = {case for one in warnings for case in one["cases"]} | {one.case for one in outliers}
    links = _previews(folder, shown | {*statistics.pictured}, row_of) if statistics.previews else {}
    conventions = {
        "outliers": f"cube roots of volumes more than {FAR:g} robust standard deviations (1.4826 times the median "
        "absolute deviation) from the cohort's median",
        "volumes": "of the scans that were segmented, in millilitres",
        "settings": " ".join(map(str, header.get("settings", []))) or "none",
    }
    return write_page(
        path,
        TEMPLATE,
        title=f"Predictions of {Path(str(header.get('run', ''))).name}",
        result={"conventions": conventions, "versions": header.get("versions", {})},
        run=str(header.get("run", "")),
        statuses=dict(statistics.statuses),
        total=sum(statistics.statuses.values()),
        seconds=_median(statistics.seconds),
        reasons=_reasons(statistics.reasons),
        warnings=warnings,
        tables=tables,
        previews=statistics.previews,
        links={case: quote(os.fsencode(path.relative_to(folder).as_posix())) for case, path in links.items()},
        small=[(case, small) for case in statistics.pictured if case in links and (small := _small(links[case]))],
        least=LEAST_SCANS,
        far=FAR,
        enough=statistics.are_enough,
        volumes=[_bars(one) for one in statistics.volumes() if one.n],
        outliers=outliers,
        pictures=_pictures(folder, outliers[:MOST_THUMBNAILS], row_of, header.get("structures", {})),
    )


def _median(values: Any) -> float | None:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else None


def _reasons(reasons: Reasons) -> list[dict[str, Any]]:
    """Kinds of reasons for the page, with a whole one below where the kind leaves something out."""
    found = []
    for words, kind in reasons.most_common(MOST_REASONS):
        whole = "" if kind.first == words or words == "others" else kind.first
        found.append({"reason": words, "count": kind.n, "cases": kind.cases, "whole": whole})
    return found


def _previews(folder: Path, cases: Collection[str], row_of: Callable[[str], Mapping[str, Any]]) -> dict[str, Path]:
    """Where the previews of cases lie; none of those that are not there (any more) or that no link can name."""
    found = {}
    for case in cases:
        with suppress(OSError, ValueError, KeyError, UnicodeEncodeError):
            path = place(folder, str(row_of(case)["preview"]))
            if path.is_file():
                quote(os.fsencode(path.relative_to(folder).as_posix()))
                found[case] = path
    return found


def _small(preview: Path) -> str:
    """A preview as a small JPEG in base64, about 12 kB; nothing where it is no picture (any more)."""
    from PIL import Image

    buffer = io.BytesIO()
    try:
        with Image.open(preview) as picture:
            picture.thumbnail((SMALL, SMALL))
            picture.convert("RGB").save(buffer, "JPEG", quality=75)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _bars(one: Volumes) -> dict[str, Any]:
    """A distribution with its histogram's bars and round volumes in per cent of width and height."""
    most = max(one.counts)
    width = 100 / len(one.counts)
    bars = [
        {"x": round(n * width, 3), "width": round(width * 0.92, 3), "height": round(100 * count / most, 2), "n": count}
        | {"low": one.edges[n], "high": one.edges[n + 1]}
        for n, count in enumerate(one.counts)
    ]
    low, high = one.edges[0], one.edges[-1]
    ticks = [{"text": text, "at": round(100 * (at - low) / (high - low), 2)} for at, text in round_ticks(low, high)]
    told = {"name": one.name, "n": one.n, "absent": one.absent, "quantiles": one.quantiles, "ticks": ticks}
    return told | {"bars": bars, "most": most, "alike": one.quantiles[0] == one.quantiles[-1]}


def _pictures(
    folder: Path,
    outliers: list[Outlier],
    row_of: Callable[[str], Mapping[str, Any]],
    structures: Mapping[str, Any],
) -> list[tuple[Outlier, str]]:
    """Outliers with their thumbnails; without those whose files cannot be shown (any more)."""
    found: list[tuple[Outlier, str]] = []
    if not outliers:
        return found
    from rarevox.pipeline.cohort.thumbnail import thumbnail  # imports PyTorch and MONAI, which takes seconds

    values = [value for value in structures.values() if isinstance(value, int)]
    for one in outliers:
        with suppress(OSError, ValueError, KeyError, IndexError):
            row = row_of(one.case)
            image = row["image"][0] if isinstance(row["image"], list) else row["image"]
            found.append((one, thumbnail(image, place(folder, str(row["output"])), values)))
    return found
