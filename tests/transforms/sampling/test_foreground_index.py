from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rarevox.transforms import ForegroundIndex


def test_index_lists_every_voxel_of_every_class_once() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 5, 4))
    index = ForegroundIndex.of(labels)
    assert index.classes == (1, 2, 3)
    for value, voxels in zip(index.classes, index.voxels, strict=True):
        assert np.array_equal(np.sort(voxels), np.flatnonzero(labels.ravel() == value))


def test_components_by_hand() -> None:
    """Two voxels that share a corner are one component, or two when only faces join; another class stays apart."""
    labels = np.array([[1, 0, 0], [0, 1, 2]])
    assert [v.tolist() for v in ForegroundIndex.of_components(labels).voxels] == [[0, 4], [5]]
    assert [v.tolist() for v in ForegroundIndex.of_components(labels, 1).voxels] == [[0], [4], [5]]
    assert ForegroundIndex.of_components(labels, 1).classes == (1, 1, 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.05, 0.3, 1.0]), connectivity=st.integers(1, 3))
def test_components_are_those_of_the_whole_volume(seed: int, share: float, connectivity: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(1, 3, (6, 7, 5)) * (random.random((6, 7, 5)) < share)
    index = ForegroundIndex.of_components(labels, connectivity)
    expected = []
    for value in (1, 2):
        numbered, count = ndimage.label(labels == value, ndimage.generate_binary_structure(3, connectivity))
        expected += [set(np.flatnonzero(numbered.ravel() == n).tolist()) for n in range(1, count + 1)]
    found = [set(v.tolist()) for v in index.voxels]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert all(labels.ravel()[v[0]] == c for v, c in zip(index.voxels, index.classes, strict=True))


@pytest.mark.parametrize("build", [ForegroundIndex.of, ForegroundIndex.of_components])
def test_no_foreground_no_groups(build) -> None:
    index = build(np.zeros((3, 4, 5), np.uint8))
    assert (index.shape, index.voxels, index.classes) == ((3, 4, 5), (), ())
