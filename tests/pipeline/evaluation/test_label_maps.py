"""Label maps as they are read: their values, and grids that differ."""

from __future__ import annotations

import numpy as np
import pytest

from rarevox.pipeline.evaluation.label_maps import LabelMap, label_values, on_grid
from rarevox.transforms.reader import ScanError


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, bool])
def test_label_values_are_those_of_unique(dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, 9, (5, 6, 7)).astype(dtype)
    assert label_values(array) == [int(v) for v in np.unique(array)]
    assert label_values(np.array([-3, 2], np.int16)) == [-3, 2]


def test_grids_are_both_described() -> None:
    one = LabelMap(np.zeros((2, 2, 2), int), np.eye(4), (1.0, 1.0, 1.0))
    other = LabelMap(np.zeros((3, 2, 2), int), np.diag([2.0, 1, 1, 1]), (2.0, 1.0, 1.0))
    with pytest.raises(ScanError, match=r"2×2×2 voxels of 1×1×1 mm.* against 3×2×2 voxels of 2×1×1 mm"):
        on_grid(one, other)
    turned = np.array([[-1.0, 0, 0, 9.5], [0, 1, 0, 0], [0, 0, 1, -3], [0, 0, 0, 1]])
    expected = r"1×1×1 mm, RAS, from \(0, 0, 0\) against .* 1×1×1 mm, LAS, from \(9.5, 0, -3\), affines 9.5 apart"
    with pytest.raises(ScanError, match=expected):
        on_grid(one, LabelMap(np.zeros((2, 2, 2), int), turned, (1.0, 1.0, 1.0)))
