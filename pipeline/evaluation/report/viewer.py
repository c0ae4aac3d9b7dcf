"""What the report's slice viewer needs of a case: small volumes as images, which a browser unpacks by itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.evaluation.report.planes import LETTERS, NAMES, canonical, focus, label_mask, to_native
from rarevox.pipeline.pictures import window

MAX_VOXELS = 3_000_000
"""Larger cases are thinned for the viewer, by whole steps per axis; a head is 0.4 MB of JPEG at this many voxels."""
MAX_LABELS = 4095
"""Labels that can be told apart: three digits to the base 16."""
MAX_BYTES = 1_100_000
"""Of one case in the page: 20 cases stay under 25 MB. What is larger (noise, hundreds of labels) is thinned further."""


def viewer_data(
    image: np.ndarray | None,
    prediction: np.ndarray | None,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    structures: Mapping[str, Any],
    *,
    affine: np.ndarray | None = None,
    max_voxels: int = MAX_VOXELS,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """A case for the viewer, cut to its structures and their surroundings.

    Each volume becomes one picture, its axial slices side by side in rows. The image is a JPEG; the label maps are PNG
    whose grey value is the number of the label in ``codes``, times ``scale`` (so that a browser which blurs pixel
    values against fingerprinting still yields the right number). Of more than 255 labels, red, green and blue are the
    three digits of that number to the base 16, times ``scale``; labels from the 4095th on share the last number. Where
    a case is thinned, a step that holds any label
    keeps it, so that small lesions stay visible.

    Returns:
        ``shape``, ``spacing`` (mm), ``columns``, ``scale``, ``digits`` (1 or 3), ``structures`` (name → codes),
        ``centre``, ``size`` (voxels of the file along its axes), ``voxel`` and ``world`` (3×4: from a place in the
        viewer to the voxel of the file, and to RAS+ mm), ``planes`` (names and letters), ``image``, ``reference``,
        ``prediction`` (data addresses; None if absent).
    """
    turn, size = to_native(reference.shape, affine), list(reference.shape)
    affine = np.diag([*map(float, spacing_mm), 1.0]) if affine is None else np.asarray(affine, float)
    image, prediction, reference, spacing = canonical(image, prediction, reference, spacing_mm, affine)
    box, centre = focus(prediction, reference, spacing, structures)
    codes = _code_table(structures)
    step, pictures = _pictures(image, prediction, reference, box, spacing, list(codes), max_voxels, max_bytes)
    shape = _thin_shape(box, step)
    places = turn @ _places(box, step)
    return {
        "shape": shape,
        "spacing": [float(s) * n for s, n in zip(spacing, step, strict=True)],
        "first": [s.start for s in box],
        "size": size,
        "voxel": places[:3].tolist(),
        "world": (affine @ places)[:3].tolist(),
        "columns": _columns(shape),
        "scale": _scale(len(codes)),
        "digits": _digits(len(codes)),
        "structures": {name: [codes[v] for v in _values(vs)] for name, vs in structures.items() if vs != 0},
        "centre": [min((c - s.start) // n, m - 1) for c, s, n, m in zip(centre, box, step, shape, strict=True)],
        "planes": [{"name": NAMES[a], "letters": LETTERS[a]} for a in range(3)],
        **pictures,
    }


def _pictures(
    image: np.ndarray | None,
    prediction: np.ndarray | None,
    reference: np.ndarray,
    box: tuple[slice, ...],
    spacing: Sequence[float],
    values: Sequence[int],
    max_voxels: int,
    max_bytes: int,
) -> tuple[list[int], dict[str, str | None]]:
    """The step along each axis, and ``image``, ``reference`` and ``prediction`` as data addresses within the limits."""
    low, high = window(image) if image is not None else (0.0, 1.0)
    while True:
        step = _steps([s.stop - s.start for s in box], spacing, max_voxels)
        columns = _columns(_thin_shape(box, step))
        pictures: dict[str, str | None] = {"image": None}
        for name, labels in (("reference", reference), ("prediction", prediction)):
            coded = None if labels is None else _codes(labels[box], values, step)
            pictures[name] = None if coded is None else _png(_painted(_atlas(coded, columns), len(values)))
        if image is not None:
            thin = image[box][tuple(slice(None, None, n) for n in step)]
            grey = np.nan_to_num((thin.astype(np.float32) - low) / (high - low)).clip(0, 1) * 255
            pictures["image"] = _jpeg(_atlas(grey.astype(np.uint8), columns))
        if sum(len(picture or "") for picture in pictures.values()) <= max_bytes or max_voxels < 1000:
            return step, pictures
        max_voxels //= 2


def _code_table(structures: Mapping[str, Any]) -> dict[int, int]:
    """Label value → its number in the viewer, from 1; the background is 0."""
    values = sorted({v for vs in structures.values() for v in _values(vs)} - {0})
    return {0: 0} | {value: min(number, MAX_LABELS) for number, value in enumerate(values, start=1)}


def _values(values: Any) -> list[int]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _scale(codes: int) -> int:
    """The values of a colour between two labels, or two digits, for this many labels with the background."""
    return 255 // max(1, codes - 1) if _digits(codes) == 1 else 255 // 15


def _digits(codes: int) -> int:
    """How many colours tell this many labels, with the background, apart: grey alone, or red, green and blue."""
    return 1 if codes <= 256 else 3


def _painted(atlas: np.ndarray, codes: int) -> np.ndarray:
    """Numbers of labels as grey values (height, width) or, of many, as colours (height, width, 3)."""
    if _digits(codes) > 1:
        atlas = np.stack([atlas >> shift & 15 for shift in (8, 4, 0)], axis=-1)
    return (atlas * _scale(codes)).astype(np.uint8)


def _thin_shape(box: Sequence[slice], step: Sequence[int]) -> list[int]:
    return [len(range(0, s.stop - s.start, n)) for s, n in zip(box, step, strict=True)]


def _columns(shape: Sequence[int]) -> int:
    """How many slices stand side by side, so that the picture is about square."""
    return max(1, int(np.ceil(np.sqrt(shape[2] * shape[1] / shape[0]))))


def _places(box: Sequence[slice], step: Sequence[int]) -> np.ndarray:
    """4×4: from an index in the viewer to the middle of the voxels that it stands for, in the turned volume."""
    places = np.diag([*map(float, step), 1.0])
    places[:3, 3] = [s.start + (n - 1) / 2 for s, n in zip(box, step, strict=True)]
    return places


def _steps(shape: Sequence[int], spacing: Sequence[float], max_voxels: int) -> list[int]:
    """How many voxels of each axis become one: the finest axis gives way first."""
    step = [1, 1, 1]
    while np.prod([-(-n // s) for n, s in zip(shape, step, strict=True)]) > max_voxels:
        finest = min(range(3), key=lambda axis: spacing[axis] * step[axis])
        step[finest] += 1
    return step


def _codes(labels: np.ndarray, values: Sequence[int], step: Sequence[int]) -> np.ndarray:
    """Labels as 1, 2, … in the order of ``values``, thinned so that a block with any label has one."""
    filled = np.zeros(labels.shape, np.uint8 if len(values) <= 256 else np.uint16)
    for code, value in enumerate(values):  # the background comes first, as 0
        filled[label_mask(labels, value)] = min(code, MAX_LABELS)
    codes: np.ndarray = np.pad(filled, [(0, -n % s) for n, s in zip(labels.shape, step, strict=True)])
    (x, y, z), (i, j, k) = codes.shape, step
    return codes.reshape(x // i, i, y // j, j, z // k, k).max(axis=(1, 3, 5))


def _atlas(volume: np.ndarray, columns: int) -> np.ndarray:
    """Slices along the last axis side by side: slice k at row k // columns, column k % columns; (height, width)."""
    x, y, z = volume.shape
    rows = -(-z // columns)
    slices = np.zeros((rows * columns, y, x), volume.dtype)
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
