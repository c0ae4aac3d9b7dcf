"""One scan and its labels as a small picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from rarevox.pipeline.planes import three_planes
from rarevox.transforms.reader import read_scan

SIDE = 160
"""Pixels of the longest edge of the volume."""


def thumbnail(image: str | Path, labels: str | Path, values: Sequence[int] = ()) -> str:
    """Three planes through the most of the labels (the middle where there are none) as a base64 PNG.

    Args:
        image: the scan's file.
        labels: its label map, on the same grid.
        values: of the structures, in the order of their colours.

    Raises:
        ScanError: a file cannot be read. ValueError: they are on different grids.
    """
    scan, found = read_scan(image, None), read_scan(labels, None).array[0]
    if found.shape != scan.shape:
        raise ValueError("the label map is on another grid")
    buffer = io.BytesIO()
    three_planes(scan.array[0], found, scan.affine, SIDE, values).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
