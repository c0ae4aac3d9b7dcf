"""Blobs of a phantom: the lesions and their look-alikes, each an irregular soft shape grown at one voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import ndtri

from rarevox.pipeline.phantom.fields import Array

Mask = npt.NDArray[np.bool_]

# Medians and spreads (of the logarithm) of the volumes: patches along the ventricles, dots in the deep white matter.
_NEAR_MM3, _DEEP_MM3, _SPREAD = 300.0, 90.0, 0.8
_SMALLEST_MM3 = 16.0
_NEAR_SHARE = 0.55
# Above this many lesions a share is met with larger ones instead: real heavy loads are confluent.
_MANY = 45
# Spread (of the logarithm) of the lesion load between subjects, and the fractional part of the golden ratio.
_LOAD_SPREAD, _GOLDEN = 0.45, 0.6180339887498949


@dataclass(frozen=True)
class Blob:
    """A soft shape: ``membership`` 0 … 1 inside ``box`` of the volume, its hard core (above one half) in ``core``."""

    box: tuple[slice, slice, slice]
    membership: Array
    core: Mask

    @property
    def voxels(self) -> int:
        """Voxels of the core."""
        return int(self.core.sum())


def grow_blob(
    generator: np.random.Generator, centre: npt.NDArray[np.int64], voxels: int, allowed: Mask, spacing_mm: float
) -> Blob:
    """Grow an irregular blob of ``voxels`` voxels round ``centre``, its core inside ``allowed``.

    A depth is computed for every voxel of a box: minus the distance in a randomly turned and stretched ellipsoid,
    roughened by smooth noise. The core is the ``voxels`` deepest allowed voxels connected to the centre, so sizes come
    out as asked unless the allowed region is too narrow; the membership is a logistic function of the depth, one half
    between the last voxel in and the first one out.

    Args:
        generator: the source of randomness.
        centre: index (3,) of an allowed voxel.
        voxels: size of the core, at least 1.
        allowed: (X, Y, Z), where the core may lie.
        spacing_mm: edge of a voxel in mm.
    """
    radius_mm = spacing_mm * (voxels * 0.75 / np.pi) ** (1 / 3)
    reach = int(np.ceil(2 * radius_mm / spacing_mm)) + 2
    low = np.maximum(centre - reach, 0)
    high = np.minimum(centre + reach + 1, allowed.shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    offsets = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"))
    offsets_mm = (offsets - centre.reshape(3, 1, 1, 1)) * spacing_mm
    turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    stretch = np.exp(generator.normal(0, 0.25, 3))
    squash = turn * (stretch / stretch.prod() ** (1 / 3))[:, None]
    distance_mm = np.sqrt((np.einsum("ij,jxyz->ixyz", squash, offsets_mm) ** 2).sum(axis=0))
    noise = ndimage.gaussian_filter(
        generator.standard_normal(distance_mm.shape), max(radius_mm / spacing_mm / 2.2, 0.7)
    )
    depth = -distance_mm - 0.4 * radius_mm * noise / noise.std()
    inside = allowed[box]
    at_centre = tuple(centre - low)
    depth[at_centre] = max(depth[at_centre], depth[inside].max())
    level = _level(depth[inside], voxels)
    pieces, _ = ndimage.label(inside & (depth >= level))
    core = pieces == pieces[at_centre]
    rim_mm = max(generator.uniform(0.3, 0.9), 0.2 * spacing_mm)
    membership = 1 / (1 + np.exp(np.clip((level - depth) / rim_mm, -30, 30)))
    # Pieces cut off from the centre belong to no lesion and must not shine.
    membership[ndimage.binary_dilation((pieces > 0) & ~core) & ~core] = 0
    return Blob(box, membership.astype(np.float32), core)


def _level(depths: npt.NDArray[np.float64], voxels: int) -> float:
    """The depth that lets in the ``voxels`` deepest: midway to the next one."""
    if voxels >= depths.size:
        return float(depths.min()) - 1e-3
    parted = np.partition(depths, [depths.size - voxels - 1, depths.size - voxels])
    return float((parted[depths.size - voxels - 1] + parted[depths.size - voxels]) / 2)


def lesion_target(index: int, *, seed: int, lesion_share: float, voxels: int) -> int:
    """Lesion voxels that subject ``index`` should have: log-normal over the cohort, ``lesion_share`` on average.

    The subjects walk through the quantiles of the log-normal in golden-ratio steps from a seeded start, so that every
    first few of them already average to the share, however many follow; at least 1, and 0 where the share is 0.

    >>> targets = [lesion_target(k, seed=0, lesion_share=1e-3, voxels=1_000_000) for k in range(16)]
    >>> 900 < sum(targets) / 16 < 1100 and max(targets) > 2 * min(targets)
    True
    """
    if lesion_share == 0:
        return 0
    start = np.random.default_rng(seed).uniform()
    quantile = (start + index * _GOLDEN) % 1.0
    # exp(σ·z − σ²/2) has the mean 1 over the normal z.
    load = float(np.exp(_LOAD_SPREAD * ndtri(np.clip(quantile, 0.005, 0.995)) - _LOAD_SPREAD**2 / 2))
    return max(1, round(lesion_share * voxels * load))


def place_lesions(
    generator: np.random.Generator, maps: Mapping[str, Array], target: int, *, spacing_mm: float
) -> list[Blob]:
    """Lesions in the white matter, ``target`` voxels in all: a bit over half near the ventricles, the rest deep.

    Volumes are log-normal (medians 300 mm³ near and 90 mm³ deep, σ of the logarithm 0.8), larger where more than 45
    lesions would be needed. The sum misses ``target`` only where less than the smallest lesion (16 mm³) is left, or
    where the white matter has no room.
    """
    free = (maps["white"] > 0.5) & (maps["ventricles"] < 0.3)
    smallest = max(1, round(_SMALLEST_MM3 / spacing_mm**3))
    mean_mm3 = (_NEAR_SHARE * _NEAR_MM3 + (1 - _NEAR_SHARE) * _DEEP_MM3) * np.exp(_SPREAD**2 / 2)
    larger = max(1.0, target * spacing_mm**3 / (_MANY * mean_mm3))
    places = {name: _Places(maps[name] * free) for name in ("near", "deep")}
    lesions: list[Blob] = []
    missing = target
    for _ in range(4 * _MANY):
        if missing <= 0 or (lesions and missing < smallest):
            break
        near = generator.uniform() < _NEAR_SHARE
        volume_mm3 = larger * (_NEAR_MM3 if near else _DEEP_MM3) * np.exp(generator.normal(0, _SPREAD))
        size = min(max(smallest, round(volume_mm3 / spacing_mm**3)), missing)
        centre = places["near" if near else "deep"].draw(generator, free)
        if centre is None:
            continue
        lesion = grow_blob(generator, centre, size, free, spacing_mm)
        free[lesion.box] &= ~lesion.core
        lesions.append(lesion)
        missing -= lesion.voxels
    return lesions


class _Places:
    """Random voxels drawn in proportion to a weight map."""

    def __init__(self, weight: Array) -> None:
        self._index = np.flatnonzero(weight > 0.02)
        self._cumulative = np.cumsum(weight.ravel()[self._index], dtype=np.float64)
        self._shape = weight.shape

    def draw(self, generator: np.random.Generator, free: Mask) -> npt.NDArray[np.int64] | None:
        """Index (3,) of a voxel that is still free; None if twenty draws find none."""
        for _ in range(20 if self._index.size else 0):
            at = np.searchsorted(self._cumulative, generator.uniform() * self._cumulative[-1], side="right")
            index = np.array(np.unravel_index(self._index[min(at, self._index.size - 1)], self._shape))
            if free[tuple(index)]:
                return index
        return None


def place_lookalikes(
    generator: np.random.Generator, allowed: Mask, *, mean_count: float, median_mm3: float, spacing_mm: float
) -> list[Blob]:
    """Blobs that are no lesions, Poisson-many of them, inside ``allowed`` (cortex, or CSF for flow artefacts)."""
    places = _Places(allowed.astype(np.float32))
    blobs = []
    for _ in range(generator.poisson(mean_count)):
        voxels = max(1, round(median_mm3 * np.exp(generator.normal(0, 0.6)) / spacing_mm**3))
        centre = places.draw(generator, allowed)
        if centre is not None:
            blobs.append(grow_blob(generator, centre, voxels, allowed, spacing_mm))
    return blobs
