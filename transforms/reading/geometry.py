"""Where voxels lie: everything that an affine says, in millimetres, and the affines that say nothing true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rarevox.transforms.reading.errors import ScanError

AFFINE_TOLERANCE = 1e-3
"""Two affines whose entries differ by no more than this (mm) describe the same grid."""

PLAUSIBLE_MM = (0.01, 30.0)
"""Voxels of scans are this long; others hint at wrong units."""

POSSIBLE_MM = (1e-6, 1e3)
"""No scanner makes voxels shorter than a nanometre or longer than a metre: no volume would be right."""

FARTHEST_MM = 1e7
"""No scan begins ten kilometres from its origin; beyond, millimetres drown in the rounding of what is computed."""

LEAST_ANGLE = 1e-3
"""Axes whose volume is this share of what it were at right angles (or less) run the same way, to rounding."""


def same_affine(first: np.ndarray, second: np.ndarray, tolerance: float = AFFINE_TOLERANCE) -> bool:
    """Whether no entry of the two affines differs by more than ``tolerance`` (NaN never agrees).

    >>> same_affine(np.eye(4), np.eye(4) + 1e-8), same_affine(np.eye(4), np.eye(4) + 0.002)
    (True, False)
    """
    return bool(np.all(np.abs(np.asarray(first) - np.asarray(second)) <= tolerance))


TIE = 1e-6
"""Voxels: a place this little off the middle between two voxels is on it."""


def labels_on_grid(labels: np.ndarray, affine: np.ndarray, shape: Sequence[int], other: np.ndarray) -> np.ndarray:
    """The label at the centre of each voxel of another grid: that of the nearest voxel, 0 outside the labels' own.

    A grid ends half a voxel beyond the centres of its outer voxels, so that maps of one field of view with voxels of
    different size cover one another; between two voxels the one with the higher index counts, whatever rounding says.
    The centre c of a voxel i of the other grid is at A⁻¹ B i in the labels' indices, and floor(c + ½) is its voxel.

    Args:
        labels: (X, Y, Z), whole numbers.
        affine: 4×4, of the labels: voxel indices to RAS mm.
        shape: of the other grid.
        other: 4×4, its affine.

    >>> halves = np.diag([0.5, 1, 1, 1])
    >>> halves[0, 3] = -0.25
    >>> labels_on_grid(np.array([[[1]], [[2]]]), np.eye(4), (6, 1, 1), halves).ravel().tolist()
    [1, 1, 2, 2, 0, 0]
    """
    to_labels = np.linalg.inv(affine) @ other
    out = np.zeros(tuple(shape), labels.dtype)
    j, k = np.meshgrid(*map(np.arange, shape[1:]), indexing="ij")
    for i in range(shape[0]):  # a plane at a time: coordinates take 24 bytes a voxel
        places = np.tensordot(to_labels[:3, :3], np.stack([np.full(j.shape, i), j, k]), 1)
        nearest = np.floor(places + (to_labels[:3, 3, None, None] + 0.5 + TIE)).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < np.array(labels.shape)[:, None, None])).all(0)
        out[i][inside] = labels[tuple(nearest[:, inside])]
    return out


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """The voxel's edge lengths: the lengths of the affine's first three columns.

    >>> spacing_mm(np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 5], [0, 0, 3, 5], [0, 0, 0, 1]]))
    (1.5, 2.0, 3.0)
    """
    x, y, z = (float(length) for length in np.linalg.norm(np.asarray(affine)[:3, :3], axis=0))
    return x, y, z


def voxel_ml(affine: np.ndarray) -> float:
    """The volume of one voxel in millilitres (also right for a sheared grid).

    >>> round(voxel_ml(np.diag([1.0, 2.0, 5.0, 1.0])), 6)
    0.01
    """
    return float(abs(np.linalg.det(np.asarray(affine)[:3, :3])) / 1000.0)


def size_text(shape: Sequence[int]) -> str:
    """A shape in words.

    >>> size_text((4, 3, 2))
    '4×3×2'
    """
    return "×".join(str(size) for size in shape)


def odd_spacing(affine: np.ndarray) -> str:
    """A sentence about voxels that are hardly so long (see ``PLAUSIBLE_MM``); empty where they may be.

    >>> odd_spacing(np.diag([1.0, 1.0, 45.0, 1.0])), odd_spacing(np.eye(4))
    ('voxels are 1 × 1 × 45 mm; are the units right?', '')
    """
    lengths = spacing_mm(affine)
    low, high = PLAUSIBLE_MM
    if low <= min(lengths) and max(lengths) <= high:
        return ""
    return f"voxels are {_lengths(lengths)} mm; are the units right?"


def require_affine(affine: np.ndarray, path: Path) -> None:
    """Refuse an affine with which no figure could be right.

    Args:
        affine: 4×4, voxel indices to mm.
        path: named in the message.

    Raises:
        ScanError: (``singular-affine``) entries that are not finite, voxels that are no scanner's (``POSSIBLE_MM``), a
            place beyond ``FARTHEST_MM``, axes that run the same way.
    """
    if not np.all(np.isfinite(affine)):
        raise _refused(f"the affine of {path} holds NaN or infinite numbers; correct its sform, qform or spacing")
    lengths = np.array(spacing_mm(affine))
    if lengths.min() == 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < LEAST_ANGLE:
        raise _refused(f"the affine of {path} is singular: an axis has no length or two run the same way")
    low, high = POSSIBLE_MM
    if lengths.min() < low or lengths.max() > high:
        raise _refused(
            f"the voxels of {path} are {_lengths(lengths)} mm, which no scan's are (expected {low:g} to {high:g} mm); "
            "correct its spacing or its units"
        )
    if np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        raise _refused(f"the first voxel of {path} lies {np.abs(affine[:3, 3]).max():.3g} mm away; correct its origin")


def _lengths(lengths: Sequence[float] | np.ndarray) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)


def _refused(message: str) -> ScanError:
    return ScanError(message, check="singular-affine")
