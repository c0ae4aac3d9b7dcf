"""How far a scan must lie from its network's own padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rarevox.networks import Geometry
from rarevox.pipeline.errors import RequestError


def surround(geometry: Geometry, loss_margin: int | Sequence[int]) -> tuple[int, ...]:
    """Voxels of zeros around a scan along each axis, such as a training patch at its border has.

    Args:
        geometry: of the network.
        loss_margin: voxels from each face of the network's output that the loss did not see.

    Raises:
        RequestError: no whole numbers from 0, or not one for each axis.

    >>> surround(Geometry(receptive_field=(51, 51, 51), margin=(24, 0, 24)), 3)
    (0, 3, 0)
    """
    values = [loss_margin] if isinstance(loss_margin, int) else list(loss_margin)
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in values):
        raise RequestError(f"inferer#loss_margin is {loss_margin!r}; expected whole numbers of voxels from 0")
    try:
        margins = geometry.loss_margins(loss_margin)
    except ValueError as error:
        raise RequestError(f"inferer#loss_margin: {error}") from None
    # Where convolutions are valid, zeros reach beyond the scan as far as they see in any case.
    return tuple(0 if valid else m for m, valid in zip(margins, geometry.margin, strict=True))


def voxels_to_compute(inferer: Any, shape: Sequence[int]) -> int:
    """Of a scan in one pass: what a :class:`rarevox.pipeline.inference.dense.DenseInferer` says; for others the scan's.

    >>> voxels_to_compute(None, (2, 3, 4))
    24
    """
    told = getattr(inferer, "computed_voxels", None)
    return math.prod(shape) if told is None else int(told(shape))
