"""Tiles through a network and into their places: in batches, sent while others are computed, reduced to labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from rarevox.pipeline.inference.tiling.sending import on_device_blocks
from rarevox.pipeline.inference.tiling.tiles import Tile
from rarevox.transforms.sampling.patches import crop_padded

CHUNK_VOXELS = 2**22
"""Of which a GPU takes the largest score at once: 32 MB of int64."""

Forward = Callable[[torch.Tensor], torch.Tensor]


def stitch(
    image: torch.Tensor,
    tiles: Sequence[Tile],
    size: Sequence[int],
    forward: Forward,
    *,
    device: torch.device,
    batch: int = 1,
    on_device: bool = True,
    finish: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float,
    watch: Callable[[torch.Tensor, tuple[slice, ...]], None] | None = None,
) -> torch.Tensor:
    """Compute each tile and put it in its place.

    Args:
        image: (C_in, *spatial), on any device.
        tiles: a plan; see :func:`rarevox.pipeline.inference.tiling.tiles.plan`.
        size: of the volume or box that the plan fills.
        forward: (B, C_in, *block) on ``device`` to scores (B, C, *output).
        device: where the network runs.
        batch: tiles of one size that are computed together.
        on_device: the result gathers on ``device`` and comes over once; else each tile comes over by itself.
        finish: what becomes of the scores (C, …) of each tile, such as `class_indices`, so that no class map of the
            whole is held.
        watch: is shown the scores (C, …) of each tile and their place in the volume or box.

    Returns:
        On the CPU, what ``finish`` gave, (C', *size): float32 scores by default.
    """
    groups = list(batches(tiles, batch))

    def block(number: int) -> torch.Tensor:
        parts = [crop_padded(image, tile.start, tile.size) for tile in groups[number]]
        return torch.stack(parts) if len(parts) > 1 else parts[0][None]

    result: torch.Tensor | None = None
    for group, blocks in zip(groups, on_device_blocks(block, len(groups), device), strict=True):
        for tile, scores in zip(group, forward(blocks), strict=True):
            kept = scores[(slice(None), *tile.keep)]
            if watch is not None:
                watch(kept, tile.output)
            part = finish(kept)
            if result is None:
                place = device if on_device else torch.device("cpu")
                result = torch.zeros((part.shape[0], *size), dtype=part.dtype, device=place)
            result[(slice(None), *tile.output)] = part.to(result.device)
    assert result is not None
    return result.cpu()


def batches(tiles: Sequence[Tile], count: int) -> Iterator[list[Tile]]:
    """Runs of up to ``count`` neighbouring tiles of one size."""
    group: list[Tile] = []
    for tile in tiles:
        if group and (len(group) == count or tile.size != group[0].size):
            yield group
            group = []
        group.append(tile)
    if group:
        yield group


def all_class_indices(scores: torch.Tensor) -> torch.Tensor:
    """(B, 1, *spatial) class indices of (B, C, *spatial) scores, of the type of `class_indices`; for pieces."""
    return scores.argmax(1, keepdim=True).to(torch.uint8 if scores.shape[1] <= 256 else torch.int16)


def class_indices(scores: torch.Tensor, weigh: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
    """(1, *spatial) class indices of (C, *spatial) scores, a few planes at a time: argmax itself makes int64.

    ``weigh`` makes of some planes' scores those whose largest is the label.

    >>> class_indices(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [[0, 1]]
    """
    dtype = torch.uint8 if scores.shape[0] <= 256 else torch.int16
    out = torch.empty(scores.shape[1:], dtype=dtype, device=scores.device)
    # A CPU does best with one plane; on a GPU each takes launches.
    planes = max(1, CHUNK_VOXELS // max(out[:1].numel(), 1)) if scores.is_cuda else 1
    for begin in range(0, scores.shape[1], planes):
        here = scores[:, begin : begin + planes]
        out[begin : begin + planes] = (here if weigh is None else weigh(here)).argmax(0).to(dtype)
    return out[None]
