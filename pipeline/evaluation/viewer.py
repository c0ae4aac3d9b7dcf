"""What the report's slice viewer needs of a case: small volumes as images, which a browser unpacks by itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.figures import window
from pipeline.evaluation.planes import LETTERS, NAMES, canonical, focus, label_mask

MAX_VOXELS = 3_000_000
"""Larger cases are thinned for the viewer, by whole steps per axis; about 0.4 MB of JPEG for this many voxels."""


def viewer_data(
    image: np.ndarray | None,
    prediction: np.ndarray | None,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    structures: Mapping[str, Any],
    *,
    affine: np.ndarray | None = None,
    max_voxels: int = MAX_VOXELS,
) -> dict[str, Any]:
    """A case for the viewer, cut to its structures and their surroundings.

    Each volume becomes one picture, its axial slices side by side in rows. The image is a JPEG; the label maps are PNG
    whose grey value is the number of the label in ``codes``, times ``scale`` (so that a browser which blurs pixel
    values against fingerprinting still yields the right number). Where a case is thinned, a step that holds any label
    keeps it, so that small lesions stay visible.

    Returns:
        ``shape``, ``spacing``, ``columns``, ``scale``, ``structures`` (name → codes), ``centre``, ``step``, ``image``,
        ``reference``, ``prediction`` (data addresses; None if absent), ``planes`` (names and letters).
    """
    image, prediction, reference, spacing = canonical(image, prediction, reference, spacing_mm, affine)
    box, centre = focus(prediction, reference, spacing, structures)
    step = _steps([s.stop - s.start for s in box], spacing, max_voxels)
    values = sorted({v for vs in structures.values() for v in (vs if isinstance(vs, (list, tuple)) else [vs])} - {0})
    shape = [len(range(0, s.stop - s.start, n)) for s, n in zip(box, step, strict=True)]
    columns = max(1, int(np.ceil(np.sqrt(shape[2] * shape[1] / shape[0]))))
    scale = 255 // max(1, len(values))
    maps = {}
    for name, labels in (("reference", reference), ("prediction", prediction)):
        maps[name] = None if labels is None else _png(_atlas(_codes(labels[box], values, step) * scale, columns))
    picture = None
    if image is not None:
        low, high = window(image)
        thin = image[box][tuple(slice(None, None, n) for n in step)]
        grey = np.nan_to_num((thin.astype(np.float32) - low) / (high - low)).clip(0, 1) * 255
        picture = _jpeg(_atlas(grey.astype(np.uint8), columns))
    return {
        "shape": shape,
        "spacing": [float(s) * n for s, n in zip(spacing, step, strict=True)],
        "first": [s.start for s in box],
        "step": step,
        "columns": columns,
        "scale": scale,
        "structures": {
            name: [values.index(v) + 1 for v in (vs if isinstance(vs, (list, tuple)) else [vs])]
            for name, vs in structures.items()
            if vs != 0
        },
        "centre": [min((c - s.start) // n, m - 1) for c, s, n, m in zip(centre, box, step, shape, strict=True)],
        "planes": [{"name": NAMES[a], "letters": LETTERS[a]} for a in range(3)],
        "image": picture,
        **maps,
    }


def _steps(shape: Sequence[int], spacing: Sequence[float], max_voxels: int) -> list[int]:
    """How many voxels of each axis become one: the finest axis gives way first."""
    step = [1, 1, 1]
    while np.prod([-(-n // s) for n, s in zip(shape, step, strict=True)]) > max_voxels:
        finest = min(range(3), key=lambda axis: spacing[axis] * step[axis])
        step[finest] += 1
    return step


def _codes(labels: np.ndarray, values: Sequence[int], step: Sequence[int]) -> np.ndarray:
    """Labels as 1, 2, … in the order of ``values``, thinned so that a block with any label has one."""
    filled = np.zeros(labels.shape, np.uint8)
    for code, value in enumerate(values, start=1):
        filled[label_mask(labels, value)] = code
    codes: np.ndarray = np.pad(filled, [(0, -n % s) for n, s in zip(labels.shape, step, strict=True)])
    (x, y, z), (i, j, k) = codes.shape, step
    return codes.reshape(x // i, i, y // j, j, z // k, k).max(axis=(1, 3, 5))


def _atlas(volume: np.ndarray, columns: int) -> np.ndarray:
    """Slices along the last axis side by side: slice k at row k // columns, column k % columns; (height, width)."""
    x, y, z = volume.shape
    rows = -(-z // columns)
    slices = np.zeros((rows * columns, y, x), np.uint8)
    slices[:z] = volume.transpose(2, 1, 0)
    return slices.reshape(rows, columns, y, x).swapaxes(1, 2).reshape(rows * y, columns * x)


def _png(pixels: np.ndarray) -> str:
    return _encode(pixels, "PNG", "image/png", optimize=True)


def _jpeg(pixels: np.ndarray) -> str:
    return _encode(pixels, "JPEG", "image/jpeg", quality=82)


def _encode(pixels: np.ndarray, form: str, kind: str, **options: Any) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
