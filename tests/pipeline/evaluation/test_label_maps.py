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


def test_a_map_of_voxels_of_another_size_covers_the_whole_field_of_view() -> None:
    """2 mm and 1 mm from the same corner: the outer voxels of 1 mm lie beyond the centres of the outer ones of 2 mm."""
    coarse = np.arange(1, 4 * 3 * 2 + 1).reshape(4, 3, 2)
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    fine[:3, 3] = -0.5
    reference = LabelMap(np.zeros((8, 6, 4), int), fine, (1.0, 1.0, 1.0))
    found = on_grid(LabelMap(coarse, np.diag([2.0, 2.0, 2.0, 1.0]), (2.0, 2.0, 2.0)), reference, resample=True)
    np.testing.assert_array_equal(found, coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_the_same_voxels_stored_the_other_way_round_are_all_found() -> None:
    """Whatever spacing and origin are, and however the inverse of the affine rounds."""
    random = np.random.default_rng(0)
    labels = random.integers(1, 9, (5, 4, 3))
    for _ in range(50):
        affine = np.diag([*random.uniform(0.3, 3, 3), 1.0])
        affine[:3, 3] = random.uniform(-200, 200, 3)
        turned = affine @ np.array([[-1, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        spacing = tuple(np.diag(affine)[:3])
        reference = LabelMap(np.zeros((5, 4, 3), int), turned, spacing)
        found = on_grid(LabelMap(labels, affine, spacing), reference, resample=True)
        np.testing.assert_array_equal(found, labels[::-1])
