"""Surface distances against brute force, MONAI and hand-derived geometry."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.testing import assert_allclose
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.surface import border, surface_distances

SPACING = (0.7, 1.3, 3.0)


def _blob(seed: int, size: tuple[int, int, int] = (14, 12, 10)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 1.5)
    return noise > np.quantile(noise, 0.8)


def _pairs_brute(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All directed distances between border voxels, by the definition, with no tree, crop or shortcut."""

    def on_border(mask: np.ndarray) -> np.ndarray:
        points = []
        for index in product(*map(range, mask.shape)):
            if not mask[index]:
                continue
            for axis, step in product(range(3), (-1, 1)):
                near = list(index)
                near[axis] += step
                if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                    points.append(index)
                    break
        return np.array(points) * np.array(SPACING)

    p, r = on_border(a), on_border(b)
    apart = np.sqrt(((p[:, None] - r[None]) ** 2).sum(-1))
    return apart.min(1), apart.min(0)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_brute_force(seed: int) -> None:
    a, b = _blob(seed), _blob(seed + 50)
    found, (to_reference, to_prediction) = surface_distances(a, b, SPACING), _pairs_brute(a, b)
    assert_allclose(np.sort(found.prediction_mm), np.sort(to_reference), rtol=1e-12)
    assert_allclose(np.sort(found.reference_mm), np.sort(to_prediction), rtol=1e-12)
    both = np.concatenate([to_reference, to_prediction])
    assert_allclose(found.mean_mm(), both.mean())
    assert_allclose(found.dice(1.0), (both <= 1.0).mean())
    assert_allclose(found.hausdorff_mm(), both.max())


@pytest.mark.parametrize("seed", range(3))
def test_voxel_surface_agrees_with_monai(seed: int) -> None:
    a, b = _blob(seed), _blob(seed + 50)
    tensors = [torch.from_numpy(mask[None, None]) for mask in (a, b)]
    found = surface_distances(a, b, SPACING)
    for percentile in (None, 95):
        peer = compute_hausdorff_distance(*tensors, include_background=True, percentile=percentile, spacing=SPACING)
        assert_allclose(found.hausdorff_mm(percentile or 100), float(peer), rtol=1e-5)
    peer = compute_surface_dice(*tensors, class_thresholds=[1.0], include_background=True, spacing=SPACING)
    assert_allclose(found.dice(1.0), float(peer), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_area_surface_dice_agrees_with_monai_subvoxels(seed: int) -> None:
    a, b = _blob(seed), _blob(seed + 50)
    tensors = [torch.from_numpy(mask[None, None]) for mask in (a, b)]
    peer = compute_surface_dice(
        *tensors, class_thresholds=[1.0], include_background=True, spacing=SPACING, use_subvoxels=True
    )
    assert_allclose(surface_distances(a, b, SPACING, surface="area").dice(1.0), float(peer), rtol=1e-5)


def test_area_of_a_slab_approaches_its_faces() -> None:
    # A slab of 20×20×1 voxels of 1 × 2 × 3 mm has two faces of 20·2·20·1 = 800 mm² and a rim of 2·(20 + 40)·3 =
    # 360 mm²; cutting off edges and corners as marching cubes do can only shorten it, by a few per cent.
    slab = np.zeros((22, 22, 3), bool)
    slab[1:21, 1:21, 1] = True
    area = surface_distances(slab, slab, (1, 2, 3), surface="area").prediction_weight.sum()
    assert 0.9 * 1960 < area < 1960


def test_area_hardly_depends_on_the_grid() -> None:
    # A ball of radius 20 mm has 4π·400 = 5026.5 mm². The surface of a mask has steps, which add up to 15 %; counting
    # voxels instead would give a grid with slices of 2.5 mm less than half of the surface.
    areas, counts = [], []
    for spacing in ((1, 1, 1), (1, 1, 2.5)):
        ball = _ball(20, spacing)
        areas.append(surface_distances(ball, ball, spacing, surface="area").prediction_weight.sum())
        counts.append(border(ball).sum())
    assert all(1 <= area / (4 * math.pi * 400) < 1.15 for area in areas)
    assert counts[1] / counts[0] < 0.7


def _ball(radius: float, spacing: tuple[float, float, float]) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(s * np.arange(-int(26 / s), int(26 / s) + 1) for s in spacing), indexing="ij"))
    return (grid**2).sum(0) <= radius**2


@pytest.mark.parametrize("surface", ["voxels", "area"])
def test_concentric_balls_are_their_radii_apart(surface: str) -> None:
    spacing = (1, 1, 2)
    found = surface_distances(_ball(15, spacing), _ball(20, spacing), spacing, surface=surface)
    assert abs(found.mean_mm() - 5.0) < 1.0  # a step of the finer axis: the nearest points sit on the inner steps
    assert found.dice(2.0) == 0.0
    assert found.dice(7.5) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_area_surface_agrees_with_surface_distance(seed: int) -> None:
    peer = pytest.importorskip("surface_distance", reason="pip install surface-distance to compare with it")
    a, b = _blob(seed), _blob(seed + 50)
    found = surface_distances(a, b, SPACING, surface="area")
    theirs = peer.compute_surface_distances(b, a, SPACING)
    assert_allclose(found.hausdorff_mm(), peer.compute_robust_hausdorff(theirs, 100))
    assert_allclose(found.hausdorff_mm(95), peer.compute_robust_hausdorff(theirs, 95))
    assert_allclose(found.dice(1.0), peer.compute_surface_dice_at_tolerance(theirs, 1.0))
    means = peer.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert_allclose(found.mean_mm(), np.average(means, weights=areas))


@pytest.mark.parametrize("surface", ["voxels", "area"])
def test_identity(surface: str) -> None:
    mask = _blob(0)
    found = surface_distances(mask, mask, SPACING, surface=surface)
    assert (found.hausdorff_mm(), found.mean_mm(), found.dice(0.0)) == (0.0, 0.0, 1.0)


def test_border_of_a_mask_that_fills_the_array() -> None:
    assert int(border(np.ones((4, 5, 6), bool)).sum()) == 4 * 5 * 6 - 2 * 3 * 4


def test_hd95_forgets_the_farthest_twentieth() -> None:
    # A bar of 99 voxels and one voxel 50 mm beyond its end: HD is 50, HD95 below 1 as 99 of 100 points agree.
    reference = np.zeros((160, 1, 1), bool)
    reference[:99] = True
    prediction = reference.copy()
    prediction[148] = True
    found = surface_distances(prediction, reference, (1, 1, 1))
    assert found.hausdorff_mm() == 50.0
    assert found.hausdorff_mm(95.0) == 0.0


def test_an_empty_mask_has_no_distance() -> None:
    with pytest.raises(ValueError, match="empty"):
        surface_distances(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool), (1, 1, 1))
