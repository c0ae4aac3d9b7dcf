"""Centreline Dice: by hand where the centreline is known, against its definition, and as scikit-image thins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics import centreline
from rarevox.pipeline.evaluation.metrics.centreline import centreline_dice, is_there
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows


def _middle(mask: np.ndarray) -> np.ndarray:
    """The centreline of tubes of 3×3 along the first axis: the voxels with all neighbours in the plane."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    around = [padded[:, y : y + mask.shape[1], z : z + mask.shape[2]] for y in range(3) for z in range(3)]
    return np.logical_and.reduce(around)


def _tube(begin: int, end: int, y: int = 4) -> np.ndarray:
    mask = np.zeros((20, 9, 9), bool)
    mask[begin:end, y - 1 : y + 2, 3:6] = True
    return mask


def test_a_gap_costs_what_is_missing_of_the_line() -> None:
    # The line of the prediction lies wholly in the reference; 4 of 20 voxels of the reference's line are missing.
    whole, broken = _tube(0, 20), _tube(0, 8) | _tube(12, 20)
    assert centreline_dice(broken, whole, thin=_middle) == pytest.approx(2 * 0.8 / 1.8)
    assert centreline_dice(whole, whole, thin=_middle) == 1.0


def test_width_does_not_matter_and_what_is_beside_is_nothing() -> None:
    wide = _tube(0, 20) | _tube(0, 20, y=5)
    assert centreline_dice(_tube(0, 20), wide, thin=lambda mask: _middle(mask) & _tube(0, 20)) == 1.0
    assert centreline_dice(_tube(0, 5), _tube(10, 20), thin=_middle) == 0.0


@given(st.integers(0, 10_000))
def test_both_sides_are_alike(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.random((6, 5, 4)) < 0.5 for _ in range(2))
    a[0, 0, 0] = b[1, 1, 1] = True
    found = centreline_dice(a, b, thin=lambda mask: mask)
    assert found == pytest.approx(centreline_dice(b, a, thin=lambda mask: mask))
    # A mask that is its own centreline: the Dice.
    assert found == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_empty_masks_are_the_rules_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    assert math.isnan(centreline_dice(_tube(0, 0), _tube(0, 9), thin=_middle))
    monkeypatch.setattr("rarevox.pipeline.evaluation.metrics.options.is_there", lambda: True)
    monkeypatch.setattr(centreline, "skeleton", _middle)
    options = MetricOptions(centreline=True, distances=False, lesions=False)
    empty = np.zeros((20, 9, 9), bool)
    assert case_rows("a", empty, _tube(0, 9), (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] == 0.0
    assert case_rows("a", empty, empty, (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] == 1.0


@pytest.mark.skipif(is_there(), reason="scikit-image is installed")
def test_without_scikit_image_the_request_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--editable '\.\[centreline\]' in the checkout"):
        MetricOptions(centreline=True)


def test_scikit_image() -> None:
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    options = MetricOptions(centreline=True, distances=False, lesions=False)
    row = case_rows("a", _tube(0, 8) | _tube(12, 20), _tube(0, 20), (1, 1, 1), {"s": 1}, options=options)[0]
    # Thinning shortens a line at its ends by about its radius: 1 voxel at each of the six ends.
    assert row["cldice"] == pytest.approx(2 * 0.8 / 1.8, abs=0.12)
    assert case_rows("a", _tube(0, 20), _tube(0, 20), (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] == 1.0


def _box(shape: tuple[int, int, int], *corners: tuple[int, ...]) -> np.ndarray:
    """Boxes from their first to behind their last voxels: x, X, y, Y, z, Z."""
    mask = np.zeros(shape, bool)
    for x, to_x, y, to_y, z, to_z in corners:
        mask[x:to_x, y:to_y, z:to_z] = True
    return mask


@pytest.mark.parametrize("width", [(1, 2), (2, 1), (2, 2), (2, 3), (4, 4), (3, 6)])
@pytest.mark.parametrize("axis", range(3))
def test_lines_of_even_width_are_there(width: tuple[int, int], axis: int) -> None:
    """Thinning alone leaves nothing of most."""
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    mask = np.moveaxis(_box((40, 12, 12), (4, 36, 3, 3 + width[0], 3, 3 + width[1])), 0, axis)
    line = centreline.skeleton(mask)
    assert not (line & ~mask).any()
    there = np.flatnonzero(line.any(tuple(other for other in range(3) if other != axis)))
    # A line ends within the width of the ends of its tube, and is whole.
    assert there[0] <= 4 + max(width) and there[-1] >= 35 - max(width)
    assert len(there) == there[-1] - there[0] + 1
    assert ndimage.label(line, np.ones((3, 3, 3)))[1] == 1 and line.sum() <= 2 * len(there)


@pytest.mark.parametrize("size", range(1, 7))
def test_every_component_has_a_line(size: int) -> None:
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    assert centreline.skeleton(_box((9, 9, 30), (1, 1 + size, 1, 1 + size, 1, 1 + size), (3, 6, 3, 6, 15, 28)))[
        ..., :9
    ].any()


@pytest.mark.parametrize("width", [(1, 2), (2, 1), (1, 4), (2, 2), (2, 4), (4, 4), (3, 4)])
@pytest.mark.parametrize("middle", [3, 5])
def test_a_narrow_arm_keeps_its_line(width: tuple[int, int], middle: int) -> None:
    """Square in the middle, narrower on either side; thinning alone eats one of the arms."""
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    y, z = (slice(5, 5 + one) for one in width)
    mask = _box((60, 14, 14), (2, 58, y.start, y.stop, z.start, z.stop), (25, 35, 4, 4 + middle, 4, 4 + middle))
    line = centreline.skeleton(mask)
    there = np.flatnonzero(line.any((1, 2)))
    assert not (line & ~mask).any()
    # A gap of the width of the middle at most, where the lines of the middle and of an arm end.
    assert there[0] <= 2 + 4 and there[-1] >= 57 - 4 and np.diff(there).max() <= 2 * 3 + 2


def test_lines_of_neighbours_are_their_own() -> None:
    """Two vessels with a voxel between them, one and both of even width: a line along each, and as long as it."""
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    for width in (2, 3):
        mask = _box((40, 8, 12), (2, 38, 2, 4, 2, 4), (2, 38, 2, 2 + width, 5, 5 + width))
        line = centreline.skeleton(mask)
        for part in (line[..., :4], line[..., 5:]):
            assert 32 <= part.sum() <= 40 and len(np.flatnonzero(part.any((1, 2)))) >= 32


def test_a_vessel_two_voxels_wide_counts() -> None:
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    options = MetricOptions(centreline=True, distances=False, lesions=False)
    wide, narrow = (2, 38, 2, 5, 2, 5), (2, 38, 8, 10, 8, 10)
    both, one, other = _box((40, 12, 12), wide, narrow), _box((40, 12, 12), wide), _box((40, 12, 12), narrow)
    score = {
        name: case_rows("a", found, reference, (1, 1, 1), {"s": 1}, options=options)[0]["cldice"]
        for name, found, reference in (("missed", one, both), ("whole", other, other), ("beside", one, other))
    }
    # Of two lines of nearly one length the prediction has one, and nothing else: 2 · 1 · ½ / (1 + ½), or nearly.
    assert score == {"missed": pytest.approx(2 / 3, abs=0.03), "whole": 1.0, "beside": 0.0}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_memory_changes_nothing(seed: int) -> None:
    pytest.importorskip("skimage.morphology", reason="needs scikit-image")
    options = MetricOptions(centreline=True, distances=False, lesions=False)
    random = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(random.random((24, 20, 16)), 2) > 0.5 for _ in range(2)]
    orders = ([np.asarray(mask, order=order) for mask in masks] for order in ("C", "F"))
    first, second = (case_rows("a", *pair, (1, 1, 1), {"s": 1}, options=options)[0]["cldice"] for pair in orders)
    assert first == second


def _tubes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crooked tubes, and the same with gaps and a false branch."""
    random = np.random.default_rng(seed)
    reference = np.zeros((26, 18, 16), bool)
    for _ in range(3):
        path = np.cumsum(random.integers(-1, 2, (26, 2)), 0) + random.integers(6, 10, 2)
        for step, (y, z) in enumerate(path.clip(2, [15, 13])):
            reference[step, y - 1 : y + 2, z - 1 : z + 2] = True
    prediction = np.roll(reference, random.integers(-1, 2), 1)
    begin = int(random.integers(4, 18))
    prediction[begin : begin + 4] = False
    prediction[begin + 1, 2:16, 7:9] = True
    return prediction, reference


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rounds", [1, 3])
def test_monai(seed: int, rounds: int) -> None:
    """Of hard masks its soft skeleton is hard too: with it as the way of thinning, our figure is one less its loss."""
    from monai.losses.cldice import SoftclDiceLoss, soft_skel

    def thin(mask: np.ndarray) -> np.ndarray:
        soft = soft_skel(torch.from_numpy(mask[None, None].astype(np.float64)), rounds)[0, 0].numpy()
        assert set(np.unique(soft)) <= {0.0, 1.0}
        return soft > 0

    prediction, reference = _tubes(seed)
    masks = (torch.from_numpy(mask[None, None].astype(np.float64)) for mask in (prediction, reference))
    smooth = 1e-12  # it may not be 0, and is added to a sum of two ratios
    loss = float(SoftclDiceLoss(iter_=rounds, smooth_nr=0.0, smooth_dr=0.0, smooth=smooth)(*masks))
    found = centreline_dice(prediction, reference, thin=thin)
    assert 0.2 < found < 0.98
    assert found == pytest.approx(1 - loss, rel=2 * smooth / 0.2 + 16 * np.finfo(float).eps)


@pytest.mark.parametrize("seed", range(4))
def test_the_formula_of_the_authors_code(seed: int) -> None:
    """clDice = 2 tprec tsens / (tprec + tsens), each of a mask summed over the other one's skeleton."""
    morphology = pytest.importorskip("skimage.morphology", reason="needs scikit-image")

    def score(volume: np.ndarray, line: np.ndarray) -> float:
        return float((volume.astype(float) * line).sum() / line.astype(float).sum())

    prediction, reference = _tubes(seed)
    tprec = score(reference, morphology.skeletonize(prediction) > 0)
    tsens = score(prediction, morphology.skeletonize(reference) > 0)
    assert 0.2 < tprec < 1 and 0.2 < tsens < 1
    assert centreline_dice(prediction, reference) == pytest.approx(2 * tprec * tsens / (tprec + tsens), rel=1e-14)
