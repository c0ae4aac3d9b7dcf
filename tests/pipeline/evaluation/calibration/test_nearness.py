"""Near is within a distance along every axis, also at the faces of the volume."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter

from rarevox.pipeline.evaluation.calibration.nearness import dilate, near_boxes


def test_near_agrees_with_scipys_maximum_filter() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.uniform(size=(40, 30, 20)) < 0.001, rng.integers(1, 4, (40, 30, 20)), 0)
    whole = tuple(slice(0, n) for n in labels.shape)
    for spacing, size in (((1.0, 2.0, 5.0), (9, 5, 1)), ((0.7, 9.0, 4.5), (13, 1, 3))):
        structures = [(1,), (2, 3), (9,)]
        for near, values in zip(near_boxes(labels, structures, spacing, 4.5), structures, strict=True):
            expected = maximum_filter(np.isin(labels, values).astype(np.uint8), size, mode="constant") > 0
            found = near.block(whole)
            assert near.count == expected.sum()
            assert (found is None) == (not expected.any())
            if found is not None:
                assert np.array_equal(found, expected)
                where = (slice(5, 17), slice(20, 30), slice(3, 4))
                part = near.block(where)
                assert np.array_equal(np.zeros((12, 10, 1), bool) if part is None else part, expected[where])


def test_the_mask_that_is_given_is_not_changed() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert dilate(mask, [0, 1]).sum() == 3
    assert mask.sum() == 1
