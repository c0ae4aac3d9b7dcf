"""Overlapping Gaussian windows over a scan, slab by slab: only the windows that still overlap are held."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data.utils import compute_importance_map

from rarevox.pipeline.inference.tiling.sending import on_device_blocks, sent
from rarevox.pipeline.inference.tiling.stitch import Forward
from rarevox.pipeline.inference.tiling.tiles import Box
from rarevox.transforms.sampling.patches import crop_padded

Start = tuple[int, ...]


def first_voxels(length: int, window: int, overlap: float) -> list[int]:
    """Where the windows along one axis begin: ``int(window · (1 − overlap))`` apart, the last flush with the end.

    An axis shorter than the window has one window, half of whose excess lies before the volume.

    >>> first_voxels(10, 4, 0.5), first_voxels(3, 6, 0.5)
    ([0, 2, 4, 6], [-1])
    """
    if length <= window:
        return [-((window - length) // 2)]
    step = max(int(window * (1 - overlap)), 1)
    return [*range(0, length - window, step), length - window]


def window_starts(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[Start]:
    """The first voxel of every window, ordered along the first axis."""
    return list(itertools.product(*(first_voxels(n, w, overlap) for n, w in zip(shape, window, strict=True))))


def reaching(starts: Sequence[Start], window: Sequence[int], box: Box) -> list[Start]:
    """The windows that hold a voxel of a box.

    >>> reaching([(0,), (2,), (4,), (6,)], [4], [(4, 6)])
    [(2,), (4,)]
    """
    return [
        start
        for start in starts
        if all(s < end and s + w > begin for s, w, (begin, end) in zip(start, window, box, strict=True))
    ]


def window_slabs(
    image: torch.Tensor,
    window: Sequence[int],
    overlap: float,
    forward: Forward,
    *,
    device: torch.device,
    margin: Sequence[int] | None = None,
    box: Box | None = None,
    batch: int = 1,
    on_device: bool = True,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Class scores of a scan from overlapping windows, in slabs along the first axis.

    score = Σ g · score of the window / Σ g over the windows that hold the voxel, g the window's Gaussian (σ an eighth
    of its length); the windows and weights of MONAI's ``SlidingWindowInferer``, and so its scores. A slab goes out as
    soon as no further window reaches it: what is held is C × the window's length × the plane, not C × the scan.

    The windows lie where they lie for the whole scan, also where a box of it is asked for: only those that reach into
    it are computed, and its scores are those of the whole scan.

    Args:
        image: (C_in, *spatial), on any device.
        window: its size along each axis.
        overlap: of neighbouring windows, a share of the window from 0 to below 1.
        forward: (B, C_in, *window) on ``device`` to scores (B, C, *window).
        device: where the network runs.
        margin: voxels from each face of a window whose scores are left out; the windows then overlap, and are weighted,
            without them.
        box: first voxel and end along each axis of the part that is wanted; None is all of the scan.
        batch: windows that are computed together.
        on_device: the slab gathers on ``device``; else each window comes over to the CPU by itself.

    Yields:
        The voxels of the box along the first axis, and their scores (C, their number, *rest of the box), float32;
        valid until the next slab is asked for.
    """
    box = box or [(0, n) for n in image.shape[1:]]
    shape = tuple(end - begin for begin, end in box)
    lost = [0] * len(shape) if margin is None else margin
    kept = [w - 2 * m for w, m in zip(window, lost, strict=True)]
    inside = (slice(None), *(slice(m, w - m) for w, m in zip(window, lost, strict=True)))
    starts = reaching(window_starts(image.shape[1:], kept, overlap), kept, box)
    groups = [starts[first : first + batch] for first in range(0, len(starts), batch)]
    place = device if on_device else torch.device("cpu")
    gauss = sent(gaussian(tuple(kept)), place)

    def block(number: int) -> torch.Tensor:
        firsts = ([s - m for s, m in zip(start, lost, strict=True)] for start in groups[number])
        return torch.stack([crop_padded(image, first, window) for first in firsts])

    slab: _Slab | None = None
    for group, blocks in zip(groups, on_device_blocks(block, len(groups), device), strict=True):
        for start, scores in zip(group, forward(blocks), strict=True):
            if slab is None:
                slab = _Slab(scores.shape[0], shape, min(kept[0], shape[0]), place)
            here = tuple(s - begin for s, (begin, _) in zip(start, box, strict=True))
            if here[0] > slab.first:
                yield slab.give(here[0])
            slab.add(scores[inside].to(place, torch.float32), gauss, here)
    assert slab is not None
    yield slab.give(shape[0])


@functools.lru_cache(maxsize=4)
def gaussian(window: Start) -> torch.Tensor:
    """The weights of a window, on the CPU: there nobody has to wait for their smallest."""
    return compute_importance_map(window, mode="gaussian")


class _Slab:
    """The sums Σ g · score and Σ g over a part of the first axis that moves along it.

    Args:
        classes: C.
        shape: of the scan.
        length: voxels along the first axis that are held.
        place: the device that holds them.
    """

    def __init__(self, classes: int, shape: Sequence[int], length: int, place: torch.device) -> None:
        self.first = 0
        self.shape = tuple(shape)
        self.scores = torch.zeros((classes, length, *shape[1:]), device=place)
        self.weights = torch.zeros((length, *shape[1:]), device=place)

    def add(self, scores: torch.Tensor, gauss: torch.Tensor, start: Start) -> None:
        """Add a window's scores (C, *window), but for what lies outside the volume."""
        inside = tuple(slice(max(-s, 0), min(w, n - s)) for s, w, n in zip(start, gauss.shape, self.shape, strict=True))
        begins = [max(s, 0) for s in start]
        begins[0] -= self.first
        here = tuple(slice(b, b + part.stop - part.start) for b, part in zip(begins, inside, strict=True))
        weight = gauss[inside]
        self.scores[(slice(None), *here)] += scores[(slice(None), *inside)] * weight
        self.weights[here] += weight

    def give(self, first: int) -> tuple[slice, torch.Tensor]:
        """The scores from the slab's first voxel up to ``first``, where it begins from now on."""
        done = first - self.first
        out = self.scores[:, :done] / self.weights[:done]
        where = slice(self.first, first)
        kept = self.weights.shape[0] - done
        for sums in (self.scores, self.weights[None]):
            sums[:, :kept] = sums[:, done:].clone()
            sums[:, kept:] = 0
        self.first = first
        return where, out


def gathered(
    slabs: Iterator[tuple[slice, torch.Tensor]],
    size: Sequence[int],
    finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
    watch: Callable[[torch.Tensor, tuple[slice, ...]], None] | None = None,
    *,
    on_device: bool = False,
) -> torch.Tensor:
    """All slabs together, on the CPU, (C', *size).

    Args:
        slabs: as :func:`window_slabs` gives them.
        size: of the box that they fill.
        finish: what becomes of the scores (C, …) of each slab; None leaves them.
        watch: is shown those scores and their place in the box.
        on_device: gather them where they are, and bring them over once; else slab by slab.
    """
    across = tuple(slice(0, n) for n in size[1:])
    result: torch.Tensor | None = None
    for place, scores in slabs:
        if watch is not None:
            watch(scores, (place, *across))
        part = scores if finish is None else finish(scores)
        part = part if on_device else part.cpu()
        if result is None:
            result = part.new_empty((part.shape[0], *size))
        result[:, place] = part
    assert result is not None
    return result.cpu()
