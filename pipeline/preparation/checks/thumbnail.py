"""A case at a glance: three planes side by side with the label's outlines, as a small JPEG."""

from __future__ import annotations

import io

import numpy as np

from rarevox.pipeline.planes import COLOURS, three_planes
from rarevox.pipeline.preparation.checks.case import Loaded

__all__ = ["COLOURS", "HEIGHT", "thumbnail"]

HEIGHT = 132
"""Pixels of the tallest plane; three planes of a head are about 360 wide and 12 kB."""


def thumbnail(loaded: Loaded, height: int = HEIGHT) -> bytes:
    """Axial, coronal and sagittal plane through the most foreground (the middle without any), as JPEG.

    Planes lie in true proportions, the patient's right is on the left, and each structure is outlined in a colour of
    its own.
    Where the label has another size than the image, the image alone is drawn.
    """
    fits = loaded.label.array.shape == (1, *loaded.image.shape)
    named = np.where(loaded.foreground, loaded.label.array[0], 0) if fits else None
    values = sorted(set(loaded.declared or ()) - {0, loaded.ignored})  # as the page's legend has them
    picture = three_planes(loaded.image.array[0], named, loaded.image.affine, height, values)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, subsampling=0)
    return buffer.getvalue()
