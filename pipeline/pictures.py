"""What all pictures share: colours, the intensities that become black and white, charts as SVG.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; the reference is a solid blue line and
the prediction a dashed orange one, so that the two also differ without colour.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


def window(image: np.ndarray) -> tuple[float, float]:
    """The intensities that become black and white: the 0.5th and 99.5th percentile of what is not background.

    The background is 0, and the value of the first voxel, since normalised scans have another constant around the head.

    >>> window(np.zeros((2, 2, 2)))
    (0.0, 1.0)
    """
    values = image[np.isfinite(image) & (image != 0) & (image != image.flat[0])]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(q) for q in np.percentile(values[:: max(1, values.size // 200_000)], [0.5, 99.5]))
    return (low, high) if high > low else (low - 1.0, low + 1.0)


def svg(figure: Figure) -> str:
    """A figure as a base64 SVG, the same bytes for the same figure."""
    return base64.b64encode(figure_bytes(figure, "svg")).decode("ascii")


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as a file, the same bytes for the same figure.

    Args:
        figure: whatever its size is.
        kind: ``svg``, its words as text, or ``pdf``.
    """
    import matplotlib

    buffer = io.BytesIO()
    nameless = {"Creator": None, **({"Date": None} if kind == "svg" else {"CreationDate": None, "Producer": None})}
    with matplotlib.rc_context({"svg.hashsalt": "rarevox", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, metadata=nameless)
    return buffer.getvalue()
