"""Lesions: their blobs, sizes, places and share of the volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rarevox.pipeline.phantom.anatomy import CHANNELS, Atlas, template_positions, warp_atlas
from rarevox.pipeline.phantom.cohort import LESION, PhantomSettings, make_subject
from rarevox.pipeline.phantom.lesions import grow_blob, lesion_target, place_lesions

from .conftest import SPACING_MM


@pytest.mark.parametrize("voxels", [1, 2, 7, 40, 300])
@pytest.mark.parametrize("seed", range(3))
def test_a_blob_in_open_space_has_the_size_asked(voxels: int, seed: int) -> None:
    allowed = np.ones((31, 31, 31), bool)
    centre = np.array([15, 15, 15])
    blob = grow_blob(np.random.default_rng(seed), centre, voxels, allowed, 2.0)
    _, pieces = ndimage.label(blob.core)
    assert pieces == 1
    # Islands that the noise splits off are dropped, so a blob may come out smaller, never larger.
    assert 0.5 * voxels <= blob.voxels <= voxels
    assert blob.core[tuple(centre - [cut.start for cut in blob.box])]
    assert blob.membership.min() >= 0 and blob.membership.max() <= 1
    np.testing.assert_array_equal(blob.membership > 0.5, blob.core)


def test_a_blob_stays_where_it_is_allowed() -> None:
    allowed = np.zeros((20, 20, 20), bool)
    allowed[:, 9:11] = True
    blob = grow_blob(np.random.default_rng(0), np.array([10, 9, 10]), 60, allowed, 1.0)
    assert not (blob.core & ~allowed[blob.box]).any()
    assert blob.voxels > 20
    alone = np.zeros((5, 5, 5), bool)
    alone[2, 2, 2] = True
    assert grow_blob(np.random.default_rng(0), np.array([2, 2, 2]), 9, alone, 1.0).voxels == 1


def test_no_blob_is_a_ball_and_no_two_are_alike() -> None:
    centre, allowed = np.array([20, 20, 20]), np.ones((41, 41, 41), bool)
    distance = np.sqrt(((np.indices((41, 41, 41)) - 20) ** 2).sum(axis=0))
    shapes = []
    for seed in range(5):
        blob = grow_blob(np.random.default_rng(seed), centre, 500, allowed, 1.0)
        shape = np.zeros((41, 41, 41), bool)
        shape[blob.box] = blob.core
        ball = distance <= np.sort(distance, axis=None)[blob.voxels - 1]
        assert 2 * (shape & ball).sum() / (shape.sum() + ball.sum()) < 0.9
        shapes.append(shape)
    for i, one in enumerate(shapes):
        for two in shapes[:i]:
            assert 2 * (one & two).sum() / (one.sum() + two.sum()) < 0.9


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_asked_loads_average_to_the_share(share: float, seed: int) -> None:
    for subjects in (8, 16, 50):
        asked = [lesion_target(k, seed=seed, lesion_share=share, voxels=800_000) for k in range(subjects)]
        assert np.mean(asked) == pytest.approx(share * 800_000, rel=0.15)
    assert lesion_target(0, seed=seed, lesion_share=1e-9, voxels=1000) == 1
    assert lesion_target(0, seed=seed, lesion_share=0, voxels=1000) == 0


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 3e-5])
def test_the_realised_share_is_the_asked_one(atlas: Atlas, share: float) -> None:
    settings = PhantomSettings(spacing_mm=SPACING_MM, lesion_share=share, seed=1)
    realised = [(make_subject(k, settings, atlas).labels == LESION).mean() for k in range(6)]
    assert min(realised) > 0
    assert np.mean(realised) == pytest.approx(share, rel=0.2)


def test_lesion_sizes_spread_and_lie_near_and_deep(atlas: Atlas) -> None:
    generator = np.random.default_rng(0)
    positions = template_positions(generator, (84, 104, 90), 2.0)
    maps = warp_atlas(atlas, positions)
    lesions = place_lesions(generator, maps, 800, spacing_mm=2.0)
    sizes = np.array([lesion.voxels for lesion in lesions])
    assert 790 <= sizes.sum() <= 800 and len(sizes) > 8 and sizes.max() > 4 * np.median(sizes)
    core = np.zeros((84, 104, 90), bool)
    for lesion in lesions:
        assert not (core[lesion.box] & lesion.core).any()  # no voxel is counted twice
        core[lesion.box] |= lesion.core
    assert maps["white"][core].min() > 0.5
    assert positions[2][core].min() > -3  # MNI z: cerebrum
    assert (maps["near"][core] > 0.4).mean() > 0.15 and (maps["deep"][core] > 0.4).mean() > 0.1


def test_no_room_gives_no_lesion() -> None:
    nothing = {name: np.zeros((8, 8, 8), np.float32) for name in CHANNELS}
    assert place_lesions(np.random.default_rng(0), nothing, 5, spacing_mm=2.0) == []
