from __future__ import annotations

import numpy as np
import pytest

from rarevox.transforms.sampling.content import content_of


@pytest.mark.parametrize("air", [0.0, -0.7])
def test_content_is_what_differs_from_the_empty_space_in_some_channel(air: float) -> None:
    image = np.full((2, 6, 6, 6), air, np.float32)
    image[0, 1:3, 2, 2] = [1.0, 2.0]
    image[1, 5, 5, 5] = 3.0
    expected = np.zeros((6, 6, 6), bool)
    expected[1:3, 2, 2] = expected[5, 5, 5] = True
    np.testing.assert_array_equal(content_of(image), expected)


def test_a_scan_without_empty_space_is_content_throughout() -> None:
    assert content_of(np.random.default_rng(0).standard_normal((1, 9, 9, 9))).all()


def test_a_constant_scan_is_content_throughout() -> None:
    assert content_of(np.zeros((1, 3, 3))).all()


def test_one_channel_without_empty_space_decides() -> None:
    """A scan that shows something everywhere in one of its channels has no empty space."""
    noisy = np.random.default_rng(0).standard_normal((1, 9, 9))
    assert content_of(np.concatenate([np.zeros((1, 9, 9)), noisy])).all()
