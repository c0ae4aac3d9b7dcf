"""A case at a glance: three planes side by side with the label's outlines, as a small JPEG."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
from scipy import ndimage

from rarevox.pipeline.pictures import window
from rarevox.pipeline.preparation.checks.case import Loaded

HEIGHT = 132
"""Pixels of the tallest plane; three planes of a head are about 360 wide and 12 kB."""

COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
"""Of Okabe and Ito, which colour-blind readers can tell apart; further structures begin again."""


def thumbnail(loaded: Loaded, height: int = HEIGHT) -> bytes:
    """Axial, coronal and sagittal plane through the most foreground (the middle without any), as JPEG.

    Planes lie in true proportions, left is the patient's left, and each structure is outlined in a colour of its own.
    Where the label has another size than the image, the image alone is drawn.
    """
    from PIL import Image

    turn = nib.io_orientation(loaded.image.affine)
    image = nib.apply_orientation(loaded.image.array[0], turn)
    order = np.argsort(turn[:, 0])
    spacing = [loaded.image.spacing_mm[axis] for axis in order]
    fits = loaded.label.array.shape == (1, *loaded.image.shape)
    named = np.where(loaded.foreground, loaded.label.array[0], 0) if fits else np.zeros((1, 1, 1), np.uint8)
    label: np.ndarray = nib.apply_orientation(named, turn) if fits else named
    centre = _centre(label, image.shape) if fits else [size // 2 for size in image.shape]
    low, high = window(image)
    longest = max(size * edge for size, edge in zip(image.shape, spacing, strict=True))
    planes = []
    for axis in (2, 1, 0):
        rest = [a for a in range(3) if a != axis]
        wide, tall = (max(8, round(height * image.shape[a] * spacing[a] / longest)) for a in rest)
        grey = _scaled(image.take(centre[axis], axis), low, high)
        picture = np.asarray(Image.fromarray(grey.T[::-1]).resize((wide, tall), Image.Resampling.BILINEAR))
        colour = np.repeat(picture[:, :, None], 3, axis=2)
        if fits:
            _outline(colour, label.take(centre[axis], axis).T[::-1])
        planes.append(colour)
    tallest = max(plane.shape[0] for plane in planes)
    planes = [_framed(plane, tallest) for plane in planes]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(planes, axis=1)).save(buffer, "JPEG", quality=80, subsampling=0)
    return buffer.getvalue()


def _centre(label: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    """Along each axis the slice with the most foreground."""
    found = label != 0
    if not found.any():
        return [size // 2 for size in shape]
    return [int(np.argmax(found.sum(axis=tuple(a for a in range(3) if a != axis)))) for axis in range(3)]


def _scaled(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Intensities as grey values; NaN is black."""
    plane = np.nan_to_num(plane.astype(np.float64), nan=low, posinf=high, neginf=low)
    return (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _outline(picture: np.ndarray, labels: np.ndarray) -> None:
    """Draw the inner border of every structure of a plane (rows from the top) into a picture of another size."""
    tall, wide = picture.shape[:2]
    rows = np.arange(tall) * labels.shape[0] // tall
    columns = np.arange(wide) * labels.shape[1] // wide
    large = labels[np.ix_(rows, columns)]
    for number, value in enumerate(v for v in np.unique(large) if v != 0):
        mask = large == value
        picture[mask & ~ndimage.binary_erosion(mask)] = COLOURS[number % len(COLOURS)]


def _framed(picture: np.ndarray, tallest: int) -> np.ndarray:
    """A plane in the middle of the strip's height, with a gap to the next."""
    above = (tallest - picture.shape[0]) // 2
    return np.pad(picture, ((above, tallest - picture.shape[0] - above), (2, 2), (0, 0)))
