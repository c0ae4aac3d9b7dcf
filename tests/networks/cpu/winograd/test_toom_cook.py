from __future__ import annotations

import numpy as np
import pytest

from rarevox.networks.cpu.winograd.toom_cook import ANALYSIS, FILTER, POINTS, SYNTHESIS, toom_cook


@pytest.mark.parametrize(
    ("points", "outputs", "taps"), [((0, 1, -1), 2, 3), ((0, 1, -1, 2, -2), 4, 3), ((0, 1, -1, 2), 2, 4), ((3,), 1, 2)]
)
def test_the_product_in_the_domain_is_the_sum_over_the_taps(points, outputs, taps) -> None:
    rng = np.random.default_rng(0)
    window, filters = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    synthesis, forward, analysis = toom_cook(points, outputs, taps)
    result = synthesis @ ((forward @ filters) * (analysis @ window))
    np.testing.assert_allclose(result, np.correlate(window, filters), atol=1e-12)


def test_the_usual_points_give_the_published_matrices() -> None:
    """F(2, 3) of Lavin and Gray, up to the signs that ANALYSIS and FILTER share."""
    synthesis, filters, analysis = toom_cook((0, 1, -1), 2, 3)
    published_filters = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    published_analysis = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    signs = np.array([[-1], [1], [1], [1]])
    np.testing.assert_allclose(filters, signs * published_filters)
    np.testing.assert_allclose(analysis, np.array([[-1], [1], [1], [-1]]) * published_analysis)
    np.testing.assert_allclose(synthesis, [[1, 1, 1, 0], [0, 1, -1, 1]])


def test_the_points_in_use_round_less_than_the_usual_ones() -> None:
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((200, 6, 6, 6))
    taps = rng.standard_normal((200, 3, 3, 3))
    views = np.lib.stride_tricks.sliding_window_view(windows, (3, 3, 3), axis=(1, 2, 3))
    exact = np.einsum("nabcijk,nijk->nabc", views, taps)

    def error(synthesis: np.ndarray, filters: np.ndarray, analysis: np.ndarray) -> float:
        def apply(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
            return np.einsum("ai,bj,ck,nijk->nabc", *(matrix.astype(np.float32),) * 3, x.astype(np.float32))

        product = apply(filters, taps) * apply(analysis, windows)
        return float(np.square(apply(synthesis, product) - exact).mean() ** 0.5)

    assert error(SYNTHESIS, FILTER, ANALYSIS) < 0.6 * error(*toom_cook((0, 1, -1, 2, -2), 4, 3))


@pytest.mark.parametrize("points", [(0, 1), (0, 1, -1, 1, 2)])
def test_points_must_be_distinct_and_enough(points) -> None:
    with pytest.raises(ValueError, match="5 distinct points"):
        toom_cook(points, 4, 3)
    assert len(POINTS) == 5
