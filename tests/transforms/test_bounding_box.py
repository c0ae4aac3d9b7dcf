from __future__ import annotations

import numpy as np
import pytest

from rarevox.transforms.bounding_box import bounding_box


@pytest.mark.parametrize("share", [0.001, 0.01, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(50,), (9, 40), (12, 11, 10), (1, 1, 1)])
def test_the_box_reaches_from_the_first_voxel_to_the_last_along_each_axis(shape: tuple[int, ...], share: float) -> None:
    mask = np.random.default_rng(len(shape)).random(shape) < share
    mask.flat[mask.size // 2] = True
    for array in (mask, np.asfortranarray(mask), mask.astype(np.int16) * -3):
        places = np.argwhere(mask)
        assert bounding_box(array) == tuple(map(slice, places.min(0).tolist(), (places.max(0) + 1).tolist()))


def test_nothing_marked_has_no_box() -> None:
    assert bounding_box(np.zeros((3, 4, 5), bool)) is None
    assert bounding_box(np.zeros((0, 4), bool)) is None
