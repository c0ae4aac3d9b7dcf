from __future__ import annotations

import torch

from rarevox.pipeline.inference.tiling.stitch import batches, class_indices, stitch
from rarevox.pipeline.inference.tiling.tiles import AxisRule, Tile, plan


def tile(size: int) -> Tile:
    return Tile((slice(0, size),), (0,), (size,), (slice(0, size),))


def test_batches_are_neighbours_of_one_size() -> None:
    found = [[t.size[0] for t in group] for group in batches([tile(n) for n in (3, 3, 3, 2, 3, 3)], 2)]
    assert found == [[3, 3], [3], [2], [3, 3]]


def test_every_way_of_computing_gives_the_same() -> None:
    image = torch.randn(1, 7, 6, 5)
    tiles = list(plan((7, 6, 5), (2, 2, 2), [AxisRule()] * 3))
    for batch in (1, 3):
        for on_device in (True, False):
            device = torch.device("cpu")
            found = stitch(image, tiles, (7, 6, 5), lambda x: x * 2, device=device, batch=batch, on_device=on_device)
            assert torch.equal(found, image * 2)


def test_more_than_256_classes_have_their_indices() -> None:
    scores = torch.zeros(300, 1, 2, 1)
    scores[299, 0, 1, 0] = 1
    assert class_indices(scores).flatten().tolist() == [0, 299]
