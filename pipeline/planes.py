"""A volume at a glance: its three planes side by side, structures outlined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import scipy

from rarevox.pipeline.pictures import window
from rarevox.pipeline.words import visible

COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
"""Of Okabe and Ito, which colour-blind readers can tell apart; further structures begin again."""
_LINE, _EDGE = 16, 6
"""Pixels of a line of a legend, and before a word."""


def three_planes(
    image: np.ndarray,
    labels: np.ndarray | None,
    affine: np.ndarray,
    height: int,
    values: Sequence[int] | None = None,
) -> Any:
    """Axial, coronal and sagittal plane through the most foreground (the middle without any), as a Pillow image.

    Planes lie in true proportions and as radiology looks at them, which a letter at the left edge says: axial and
    coronal ones with the patient's right on the left (R), sagittal ones with the front on the left (A). Each structure
    is outlined in a colour of its own.

    Args:
        image: (X, Y, Z) intensities.
        labels: (X, Y, Z) label values; None draws the image alone.
        affine: 4×4, voxel indices to RAS mm.
        height: pixels of the longest edge of the volume.
        values: label values in the order of their colours; others come behind them. None: the volume's in order.
    """
    from PIL import Image, ImageDraw

    turn = nib.io_orientation(affine)
    grey = nib.apply_orientation(image, turn)
    order = np.argsort(turn[:, 0])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[order]
    named = None if labels is None else nib.apply_orientation(labels, turn)
    colours = {} if labels is None else _colours(labels, values)
    centre = _centre(named, grey.shape)
    low, high = window(grey)
    longest = max(size * edge for size, edge in zip(grey.shape, spacing, strict=True))
    planes = []
    for axis in (2, 1, 0):
        rest = [a for a in range(3) if a != axis]
        wide, tall = (max(8, round(height * grey.shape[a] * spacing[a] / longest)) for a in rest)
        plane = _scaled(grey.take(centre[axis], axis), low, high).T[::-1, ::-1]
        picture = np.asarray(Image.fromarray(plane).resize((wide, tall), Image.Resampling.BILINEAR))
        colour = np.repeat(picture[:, :, None], 3, axis=2)
        if named is not None:
            _outline(colour, named.take(centre[axis], axis).T[::-1, ::-1], colours)
        drawn = Image.fromarray(colour)
        ImageDraw.Draw(drawn).text((2, tall // 2), "A" if axis == 0 else "R", fill=(255, 255, 255))
        planes.append(np.asarray(drawn))
    tallest = max(plane.shape[0] for plane in planes)
    return Image.fromarray(np.concatenate([_framed(plane, tallest) for plane in planes], axis=1))


def with_legend(picture: Any, title: str, names: Sequence[str]) -> Any:
    """A picture of :func:`three_planes` above a line with its title and one with each structure in its colour.

    Args:
        picture: a Pillow image.
        title: of whom it is.
        names: of the structures, in the order of ``values``.
    """
    from PIL import Image, ImageDraw

    measure = ImageDraw.Draw(picture)
    places: list[tuple[int, int, str, tuple[int, int, int]]] = [(_EDGE, 0, _plain(title), (255, 255, 255))]
    across, line = _EDGE, 1
    for number, name in enumerate(map(_plain, names)):
        wide = round(measure.textlength(name)) + 3 * _EDGE
        if across > _EDGE and across + wide > picture.width:
            across, line = _EDGE, line + 1
        places.append((across, line, name, COLOURS[number % len(COLOURS)]))
        across += wide
    drawn = Image.new("RGB", (picture.width, picture.height + (line + 1) * _LINE))
    drawn.paste(picture)
    draw = ImageDraw.Draw(drawn)
    for x, line, text, colour in places:
        draw.text((x, picture.height + line * _LINE), text, fill=colour)
    return drawn


def _plain(text: str) -> str:
    """Text that the font that comes with Pillow can draw, whatever it was built with."""
    return visible(text).encode("latin-1", "replace").decode("latin-1")


def _centre(labels: np.ndarray | None, shape: tuple[int, ...]) -> list[int]:
    """Along each axis the slice with the most foreground."""
    if labels is None or not (found := labels != 0).any():
        return [size // 2 for size in shape]
    return [int(np.argmax(found.sum(axis=tuple(a for a in range(3) if a != axis)))) for axis in range(3)]


def _scaled(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Intensities as grey values; NaN is black."""
    plane = np.nan_to_num(plane.astype(np.float64), nan=low, posinf=high, neginf=low)
    return (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _colours(labels: np.ndarray, values: Sequence[int] | None) -> dict[Any, tuple[int, int, int]]:
    """The colour of each label value of a volume, alike in all its planes."""
    found = [value for value in np.unique(labels).tolist() if value != 0]
    ordered = dict.fromkeys([*(values or ()), *found])
    return {value: COLOURS[number % len(COLOURS)] for number, value in enumerate(ordered)}


def _outline(picture: np.ndarray, labels: np.ndarray, colours: Mapping[Any, tuple[int, int, int]]) -> None:
    """Draw the inner border of every structure of a plane (rows from the top) into a picture of another size."""
    tall, wide = picture.shape[:2]
    rows = np.arange(tall) * labels.shape[0] // tall
    columns = np.arange(wide) * labels.shape[1] // wide
    large = labels[np.ix_(rows, columns)]
    for value, colour in colours.items():
        mask = large == value
        picture[mask & ~scipy.ndimage.binary_erosion(mask)] = colour


def _framed(picture: np.ndarray, tallest: int) -> np.ndarray:
    """A plane in the middle of the strip's height, with a gap to the next."""
    above = (tallest - picture.shape[0]) // 2
    return np.pad(picture, ((above, tallest - picture.shape[0] - above), (2, 2), (0, 0)))
