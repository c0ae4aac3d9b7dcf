"""Smooth random fields: cubic B-splines on a coarse grid of knots, the one source of every slow variation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# A cubic B-spline displacement whose knots stay below (knot distance / 2.48) along each axis is one-to-one in 3D
# (Choi & Lee, Graphical Models 62, 2000: the bound is 1 / 2.479472335). 0.35 leaves a margin below 0.403.
INJECTIVE_SHARE = 0.35


def spline_weights(voxels: int, spacing_mm: float, knot_mm: float) -> npt.NDArray[np.float64]:
    """Weights (voxels, knots) of the uniform cubic B-spline at voxel centres ``0, spacing_mm, 2*spacing_mm, …``.

    With u = position / knot_mm = i + t, the four weights of the knots i … i + 3 are
    (1 − t)³/6, (3t³ − 6t² + 4)/6, (−3t³ + 3t² + 3t + 1)/6 and t³/6; they sum to one.

    >>> spline_weights(2, 1.0, 1.0).round(4).tolist()
    [[0.1667, 0.6667, 0.1667, 0.0, 0.0], [0.0, 0.1667, 0.6667, 0.1667, 0.0]]
    """
    position = np.arange(voxels) * (spacing_mm / knot_mm)
    cell = np.floor(position).astype(int)
    t = position - cell
    four = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    weights = np.zeros((voxels, cell.max() + 4))
    for offset in range(4):
        weights[np.arange(voxels), cell + offset] = four[:, offset]
    return weights


def spline_field(knots: npt.NDArray[np.float64], weights: Sequence[npt.NDArray[np.float64]]) -> Array:
    """Evaluate ``knots`` (K1, K2, K3) on the voxel grid: a field (X, Y, Z), one axis after the other.

    ``np.einsum`` without path optimisation stays away from the BLAS, so the numbers do not depend on its threads.
    """
    field = np.einsum("kc,abc->abk", weights[2], knots)
    field = np.einsum("jb,abk->ajk", weights[1], field).astype(np.float32)
    return np.einsum("ia,ajk->ijk", weights[0].astype(np.float32), field)


def random_field(
    generator: np.random.Generator, shape: Sequence[int], *, spacing_mm: float, knot_mm: float, limit: float = 2.0
) -> Array:
    """A smooth field (X, Y, Z) from knots of standard normal values, cut off at ``±limit``.

    The field stays within ``±limit`` too, since the weights are positive and sum to one.

    Args:
        generator: the source of randomness; exactly one draw of all knots is made.
        shape: voxels along each axis.
        spacing_mm: edge of a voxel in mm.
        knot_mm: distance of the knots in mm: how slow the field is.
        limit: largest absolute value of a knot.

    >>> field = random_field(np.random.default_rng(0), (6, 5, 4), spacing_mm=2.0, knot_mm=8.0)
    >>> field.shape, bool(abs(field).max() <= 2)
    ((6, 5, 4), True)
    """
    weights = [spline_weights(size, spacing_mm, knot_mm) for size in shape]
    knots = generator.standard_normal([axis.shape[1] for axis in weights])
    return spline_field(np.clip(knots, -limit, limit), weights)


def displacement(
    generator: np.random.Generator, shape: Sequence[int], *, spacing_mm: float, knot_mm: float, deviation_mm: float
) -> Array:
    """A smooth one-to-one displacement (3, X, Y, Z) in mm: x ↦ x + u(x) never folds.

    The knots are normal with standard deviation ``deviation_mm`` and cut off at ``0.35 * knot_mm``, below the
    bound of Choi & Lee (2000) under which a cubic B-spline deformation is injective.

    >>> u = displacement(np.random.default_rng(0), (4, 4, 4), spacing_mm=2.0, knot_mm=20.0, deviation_mm=50.0)
    >>> u.shape, bool(abs(u).max() <= 7)
    ((3, 4, 4, 4), True)
    """
    limit = INJECTIVE_SHARE * knot_mm / deviation_mm
    fields = [random_field(generator, shape, spacing_mm=spacing_mm, knot_mm=knot_mm, limit=limit) for _ in range(3)]
    return np.stack(fields) * np.float32(deviation_mm)
