"""One scan and its labels as a small picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np

from rarevox.pipeline.pictures import OKABE_ITO, window
from rarevox.transforms.reader import read_scan

SIDE = 160
"""Pixels of the longer side."""


def thumbnail(image: str | Path, labels: str | Path) -> str:
    """A slice through the most of the labels (the middle one where there are none) as a base64 PNG.

    Args:
        image: the scan's file.
        labels: its label map, on the same grid.

    Raises:
        ScanError: a file cannot be read. ValueError: they are on different grids.
    """
    scan, found = read_scan(image, None), read_scan(labels, None).array[0]
    if found.shape != scan.shape:
        raise ValueError("the label map is on another grid")
    low, high = window(scan.array[0])
    counts = np.count_nonzero(found, axis=(0, 1))
    at = int(counts.argmax()) if counts.any() else found.shape[2] // 2
    grey = np.clip((scan.array[0, :, :, at].astype(np.float32) - low) / (high - low), 0, 1) * 255
    return png(coloured(np.nan_to_num(grey).astype(np.uint8), found[:, :, at]), scan.spacing_mm[:2])


def coloured(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Grey values (X, Y) as colours (X, Y, 3), half mixed with a colour for each label but 0."""
    colours = np.repeat(grey[..., None], 3, axis=2)
    for value in np.unique(labels[labels > 0]).tolist():
        text = OKABE_ITO[(int(value) - 1) % len(OKABE_ITO)]
        mixed = np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])
        inside = labels == value
        colours[inside] = (colours[inside].astype(int) + mixed) // 2
    return colours


def png(colours: np.ndarray, spacing_mm: tuple[float, ...]) -> str:
    """Colours (X, Y, 3) with y upwards as a base64 PNG, in the proportions of their spacing."""
    from PIL import Image

    size = np.array(colours.shape[:2]) * np.array(spacing_mm)
    width, height = (max(1, round(float(n) * SIDE / float(size.max()))) for n in size)
    picture = Image.fromarray(np.ascontiguousarray(colours.transpose(1, 0, 2)[::-1]))
    buffer = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
