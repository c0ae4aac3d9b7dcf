"""Distances between the surfaces of two masks, exact for anisotropic voxels.

Two definitions of the surface are offered, since the peers differ:

``voxels``
    The centres of the mask's voxels that have a face-neighbour outside the mask (the outside of the image counts as
    outside); every one counts the same. MONAI, medpy and most challenges measure so.
``area``
    The corners between eight voxels of which some are inside and some outside, each weighted by the area in mm² of the
    surface that passes there (marching cubes). DeepMind's ``surface-distance`` and BraTS 2023 measure so. It is the
    better one on anisotropic voxels, where a top face is larger than a side face.

Distances come from a k-d tree of the surface points alone. Against a distance transform of the bounding box this costs
memory for the surface instead of the volume, and it does not slow down when small lesions lie far apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

SURFACES = ("voxels", "area")


@dataclass(frozen=True)
class SurfaceDistances:
    """How far each surface point of two masks is from the other mask's surface.

    Attributes:
        prediction_mm: (P,) distances from the prediction's points to the reference's surface.
        reference_mm: (R,) distances from the reference's points to the prediction's surface.
        prediction_weight: (P,) weight of each point: 1, or its area in mm².
        reference_weight: (R,) likewise.
        weighted: whether the weights are areas; plain percentiles interpolate, weighted ones do not (as in the peers).
    """

    prediction_mm: np.ndarray
    reference_mm: np.ndarray
    prediction_weight: np.ndarray
    reference_weight: np.ndarray
    weighted: bool

    def hausdorff_mm(self, percentile: float = 100.0) -> float:
        """The larger of the two directed percentiles: max(Pq d(P→R), Pq d(R→P)); q = 100 is the Hausdorff distance."""
        return max(
            _percentile(self.prediction_mm, self.prediction_weight, percentile, self.weighted),
            _percentile(self.reference_mm, self.reference_weight, percentile, self.weighted),
        )

    def mean_mm(self) -> float:
        """The average symmetric surface distance: (Σ w·d(P→R) + Σ w·d(R→P)) / Σ w over both surfaces."""
        total = self.prediction_mm @ self.prediction_weight + self.reference_mm @ self.reference_weight
        return float(total / (self.prediction_weight.sum() + self.reference_weight.sum()))

    def dice(self, tolerance_mm: float) -> float:
        """Surface Dice: the share of both surfaces that lies within ``tolerance_mm`` of the other one (0 to 1)."""
        near = (
            self.prediction_weight[self.prediction_mm <= tolerance_mm].sum()
            + self.reference_weight[self.reference_mm <= tolerance_mm].sum()
        )
        return float(near / (self.prediction_weight.sum() + self.reference_weight.sum()))


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], *, surface: str = "voxels"
) -> SurfaceDistances:
    """The distances between the surfaces of two masks, in both directions.

    Args:
        prediction: (X, Y, Z) bool, with at least one voxel set.
        reference: (X, Y, Z) bool, likewise.
        spacing_mm: voxel edge lengths.
        surface: ``voxels`` or ``area``; see the module.

    Raises:
        ValueError: either mask is empty, for which a distance is not defined.

    Example, two single voxels three apart along an axis of 2 mm:
        >>> a, b = np.zeros((5, 1, 1), bool), np.zeros((5, 1, 1), bool)
        >>> a[0], b[3] = True, True
        >>> surface_distances(a, b, (2, 1, 1)).hausdorff_mm()
        6.0
    """
    if not prediction.any() or not reference.any():
        raise ValueError("a mask is empty, and the distance to an empty mask is not defined; test for it before")
    surface_of = _border if surface == "voxels" else _corners
    edge_p, weight_p = surface_of(prediction, spacing_mm)
    edge_r, weight_r = surface_of(reference, spacing_mm)
    # The flat search takes a seventh of the time of np.argwhere, which was more than half of the whole.
    flat_p, flat_r = np.flatnonzero(edge_p), np.flatnonzero(edge_r)
    points_p, points_r = (_points_mm(flat, edge_p.shape, spacing_mm) for flat in (flat_p, flat_r))
    apart_p, apart_r = ~edge_r.reshape(-1)[flat_p], ~edge_p.reshape(-1)[flat_r]
    return SurfaceDistances(
        _to_nearest(points_p, apart_p, points_r),
        _to_nearest(points_r, apart_r, points_p),
        weight_p,
        weight_r,
        weighted=surface == "area",
    )


def border(mask: np.ndarray) -> np.ndarray:
    """The mask's voxels with a face-neighbour outside it; the outside of the array counts as outside.

    >>> int(border(np.ones((3, 3, 3), bool)).sum())
    26
    """
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(mask.ndim):
        for start in (0, 2):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(start, start + mask.shape[axis])
            inside &= padded[tuple(window)]
    return mask & ~inside


def _border(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The border voxels as a boolean grid, and the weight 1 of each."""
    edge = border(mask)
    return edge, np.ones(np.count_nonzero(edge))


def _corners(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The corners where the surface passes, as a boolean grid one larger per axis, and the area of each in mm²."""
    # The eight voxels around a corner as bits, the first of each axis in the higher one; axis by axis this takes six
    # passes over the array instead of sixteen.
    code = np.pad(mask, 1).astype(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        size = code.shape[axis]
        first, second = (code[(slice(None),) * axis + (part,)] for part in (slice(size - 1), slice(1, size)))
        code = np.left_shift(first, np.uint8(bits))
        code |= second
    edge = (code - np.uint8(1)) < 254  # neither 0 (wholly outside, becomes 255) nor 255 (wholly inside)
    return edge, _area_table(tuple(float(s) for s in spacing_mm))[code[edge]]


@lru_cache(maxsize=8)
def _area_table(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """The surface area in mm² that each of the 256 corner codes stands for, from MONAI's marching-cubes table."""
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

    table, _ = create_table_neighbour_code_to_surface_area(spacing_mm)
    return np.asarray(table, np.float64)


def _points_mm(flat: np.ndarray, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> np.ndarray:
    """(n, 3) positions in mm of flat indices."""
    return np.stack(np.unravel_index(flat, shape), axis=1) * np.asarray(spacing_mm, float)


def _to_nearest(points: np.ndarray, apart: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance from each point to the nearest of ``others``; those not ``apart`` lie on one, at distance 0."""
    distances = np.zeros(len(points))
    if apart.any():
        distances[apart] = cKDTree(others, balanced_tree=False, compact_nodes=False).query(points[apart])[0]
    return distances


def _percentile(values: np.ndarray, weights: np.ndarray, percentile: float, weighted: bool) -> float:
    """The plain percentile (linear between ranks), or the first distance that covers this share of the area."""
    if not weighted:
        return float(np.percentile(values, percentile))
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, percentile / 100.0)), len(values) - 1)])
