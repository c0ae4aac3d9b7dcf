"""How the class scores of a scan are kept within memory: its grid is cut into slabs, each computed with its context."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from rarevox.pipeline.device import available_memory_gb
from rarevox.pipeline.inference.tiling.tiles import Box


def slabs(
    box: Box, classes: int, shape: Sequence[int], model_shape: Sequence[int], memory_gb: float | None = None
) -> Iterator[Box]:
    """A box of the scan's grid, cut along its longest axis into as few slabs as keep class scores within a budget.

    A slab holds float32 scores on the scan's grid, and on the network's grid twice (a tile, and all of them together).

    Args:
        box: first voxel and end along each axis.
        classes: number of scores of a voxel.
        shape: of the scan's grid.
        model_shape: of the network's grid over the same space.
        memory_gb: the budget; None is a quarter of the free memory, at most 2 GB.

    >>> list(slabs([(0, 4), (0, 10), (2, 4)], 5, (4, 10, 6), (4, 10, 6), memory_gb=2.4e-6))
    [[(0, 4), (0, 5), (2, 4)], [(0, 4), (5, 10), (2, 4)]]
    """
    if memory_gb is None:
        memory_gb = min(available_memory_gb(torch.device("cpu")) / 4, 2.0)
    axis = max(range(len(box)), key=lambda a: box[a][1] - box[a][0])
    begin, end = box[axis]
    plane = math.prod(e - b for a, (b, e) in enumerate(box) if a != axis)
    plane_bytes = plane * classes * 4 * (1 + 2 * math.prod(model_shape) / math.prod(shape))
    count = math.ceil((end - begin) / max(int(memory_gb * 1e9 / plane_bytes), 1))
    edges = np.linspace(begin, end, count + 1).round().astype(int)
    for low, high in itertools.pairwise(edges):
        yield [(int(low), int(high)) if a == axis else span for a, span in enumerate(box)]
