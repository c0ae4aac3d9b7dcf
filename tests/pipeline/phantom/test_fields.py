"""Smooth fields: splines, and heads that are deformed without a fold."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline

from rarevox.pipeline.phantom.fields import displacement, spline_field, spline_weights


def test_spline_weights_agree_with_scipy() -> None:
    weights = spline_weights(23, 1.5, 7.0)
    # Knot k is the uniform cubic B-spline over the break points (k − 3) … (k + 1), in units of the knot distance.
    for k in range(weights.shape[1]):
        spline = BSpline.basis_element(np.arange(k - 3, k + 2), extrapolate=False)
        expected = np.nan_to_num(spline(np.arange(23) * 1.5 / 7.0))
        np.testing.assert_allclose(weights[:, k], expected, atol=1e-12)


def test_a_spline_field_reproduces_a_linear_function() -> None:
    # Cubic B-splines have linear precision: knot k at position (k − 1)·h holding a·(k − 1)·h gives a·x.
    weights = [spline_weights(n, 2.0, 5.0) for n in (9, 8, 7)]
    at = [(np.arange(w.shape[1]) - 1) * 5.0 for w in weights]
    knots = 1.0 * at[0][:, None, None] + 2.0 * at[1][:, None] - 3.0 * at[2]
    x, y, z = (2.0 * np.arange(n) for n in (9, 8, 7))
    expected = x[:, None, None] + 2 * y[:, None] - 3 * z
    np.testing.assert_allclose(spline_field(knots, weights), expected, atol=1e-4)


def jacobian_determinant(positions: np.ndarray, spacing_mm: float) -> np.ndarray:
    """det ∂T/∂x by forward differences, for positions (3, X, Y, Z) in mm."""
    common = tuple(slice(size - 1) for size in positions.shape[1:])
    columns = [np.diff(positions.astype(np.float64), axis=axis)[(slice(None), *common)] for axis in (1, 2, 3)]
    return np.linalg.det(np.moveaxis(np.stack(columns, axis=-1), 0, -2) / spacing_mm)


def test_even_a_wild_displacement_does_not_fold() -> None:
    # A deviation far beyond the limit puts nearly every knot on it: the worst case that the bound allows.
    u = displacement(np.random.default_rng(0), (40, 40, 40), spacing_mm=1.0, knot_mm=10.0, deviation_mm=1e3)
    assert abs(u).max() <= 3.5 + 1e-4  # 0.35 · 10 mm
    assert abs(u).max() > 2  # and it is wild
    positions = u + np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"))
    assert jacobian_determinant(positions, 1.0).min() > 0
