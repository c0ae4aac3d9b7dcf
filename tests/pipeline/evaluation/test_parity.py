"""The same figures from independent packages, and geometry that is known in closed form.

Where a package means something else by the same word, the case is made so that both definitions agree, and
docs/metrics.md says where they part.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.testing import assert_allclose
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.metrics.surface import border

SPACING = (0.8, 1.5, 3.0)
STRUCTURES = {"s": 1, "t": 2}


def _pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps of smooth blobs that overlap in part."""
    rng = np.random.default_rng(seed)
    field, noise = (ndimage.gaussian_filter(rng.normal(size=(22, 20, 16)), 2.0) for _ in range(2))
    maps = []
    for values in (field + 0.6 * noise, field):
        low, high = np.quantile(values, [0.75, 0.9])
        maps.append(((values > low).astype(np.uint8) + (values > high)).astype(np.uint8))
    return maps[0], maps[1]


def _rows(seed: int, **options: object) -> tuple[list[dict], np.ndarray, np.ndarray]:
    prediction, reference = _pair(seed)
    made = MetricOptions(**options)  # type: ignore[arg-type]
    return case_rows("a", prediction, reference, SPACING, STRUCTURES, options=made), prediction, reference


@pytest.mark.parametrize("seed", range(3))
def test_torchmetrics(seed: int) -> None:
    peer = pytest.importorskip("torchmetrics.functional.segmentation", reason="pip install torchmetrics")
    rows, prediction, reference = _rows(seed)
    maps = [torch.from_numpy(m[None].astype(np.int64)) for m in (prediction, reference)]
    common = {"num_classes": 3, "include_background": False, "input_format": "index"}
    dice = peer.dice_score(*maps, average="none", **common)[0]
    iou = peer.mean_iou(*maps, per_class=True, **common)[0]
    assert_allclose([row["dice"] for row in rows], dice, rtol=1e-6)
    assert_allclose([row["iou"] for row in rows], iou, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn(seed: int) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    rows, prediction, reference = _rows(seed)
    flat = reference.ravel(), prediction.ravel()
    for column, function in (("dice", peer.f1_score), ("iou", peer.jaccard_score)):
        assert_allclose([row[column] for row in rows], function(*flat, labels=[1, 2], average=None), rtol=1e-12)
    for column, function in (("precision", peer.precision_score), ("recall", peer.recall_score)):
        assert_allclose([row[column] for row in rows], function(*flat, labels=[1, 2], average=None), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_scipy_points_and_distance_transform(seed: int) -> None:
    rows, prediction, reference = _rows(seed)
    for row, value in zip(rows, STRUCTURES.values(), strict=True):
        edges = [border(m == value) for m in (prediction, reference)]
        points = [np.argwhere(edge) * SPACING for edge in edges]
        both = [directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]]
        assert_allclose(row["hd_mm"], max(both), rtol=1e-12)
        to = [ndimage.distance_transform_edt(~edge, sampling=SPACING) for edge in edges]
        apart = to[1][edges[0]], to[0][edges[1]]
        assert_allclose(row["hd95_mm"], max(np.percentile(a, 95) for a in apart), rtol=1e-12)
        assert_allclose(row["assd_mm"], np.concatenate(apart).mean(), rtol=1e-12)
        assert_allclose(row["surface_dice_1mm"], (np.concatenate(apart) <= 1.0).mean(), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_simpleitk(seed: int) -> None:
    rows, prediction, reference = _rows(seed)
    images = [sitk.GetImageFromArray(m) for m in (reference, prediction)]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    for row, value in zip(rows, STRUCTURES.values(), strict=True):
        assert_allclose(row["dice"], overlap.GetDiceCoefficient(value), rtol=1e-12)
        assert_allclose(row["iou"], overlap.GetJaccardCoefficient(value), rtol=1e-12)
        assert_allclose(1 - row["precision"], overlap.GetFalseDiscoveryRate(value), rtol=1e-9, atol=1e-12)
        assert_allclose(1 - row["recall"], overlap.GetFalseNegativeError(value), rtol=1e-9, atol=1e-12)
        masks = [
            sitk.GetImageFromArray((m == value).astype(np.uint8).transpose(2, 1, 0)) for m in (reference, prediction)
        ]
        for mask in masks:
            mask.SetSpacing(SPACING)
        apart = sitk.HausdorffDistanceImageFilter()
        apart.Execute(*masks)
        assert_allclose(row["hd_mm"], apart.GetHausdorffDistance(), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_surface_distance(seed: int) -> None:
    peer = pytest.importorskip("surface_distance", reason="pip install surface-distance")
    rows, prediction, reference = _rows(seed, surface="area", tolerances_mm=(1.0, 2.5))
    for row, value in zip(rows, STRUCTURES.values(), strict=True):
        found = peer.compute_surface_distances(reference == value, prediction == value, SPACING)
        assert_allclose(row["hd_mm"], peer.compute_robust_hausdorff(found, 100))
        assert_allclose(row["hd95_mm"], peer.compute_robust_hausdorff(found, 95))
        assert_allclose(row["surface_dice_1mm"], peer.compute_surface_dice_at_tolerance(found, 1.0))
        assert_allclose(row["surface_dice_2.5mm"], peer.compute_surface_dice_at_tolerance(found, 2.5))


@pytest.mark.parametrize("seed", range(3))
def test_panoptica_where_lesions_pair_off(seed: int) -> None:
    # panoptica pairs one lesion with one, from an IoU of 0.5 on. Where each found lesion overlaps one other by more
    # than that, and the rest overlap nothing, its recognition quality is F1, and tp · sq is the sum of lesion Dice.
    peer = pytest.importorskip("panoptica", reason="pip install panoptica")
    rng = np.random.default_rng(seed)
    prediction, reference = np.zeros((2, 48, 36, 24), np.uint8)
    for number, corner in enumerate(np.ndindex(4, 3, 2)):
        start = np.array(corner) * 12 + 2
        size = rng.integers(4, 8, 3)
        cut = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        shifted = (slice(cut[0].start, cut[0].stop - 1), *cut[1:])  # IoU of at least 3/4
        if number % 4 != 1:
            reference[cut] = 1
        if number % 5 != 2:
            prediction[shifted] = 1
    row = case_rows("a", prediction, reference, SPACING, {"s": 1})[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = peer.Panoptica_Evaluator(
            expected_input=peer.InputType.SEMANTIC,
            instance_approximator=peer.ConnectedComponentsInstanceApproximator(),
            instance_matcher=peer.NaiveThresholdMatching(),
        )
        found = evaluator.evaluate(prediction, reference, verbose=False)
    found = next(iter(found.values())) if isinstance(found, dict) else found
    assert 0 < found.tp < row["lesions_reference"]
    assert (found.tp, found.fp, found.fn) == (
        row["lesions_detected"],
        row["lesions_predicted"] - row["lesions_true"],
        row["lesions_reference"] - row["lesions_detected"],
    )
    assert_allclose(found.rq, row["lesion_f1"])
    assert_allclose(found.tp * found.sq_dsc / (found.tp + found.fp + found.fn), row["lesion_dice"])
    assert_allclose(found.global_bin_dsc, row["dice"])


def test_nested_boxes_by_hand() -> None:
    # A box of 2×2×2 voxels in the middle of one of 6×6×6; a voxel is 1 × 2 × 3 mm = 0.006 ml. All 8 inner voxels are
    # border; each is 2 voxels from the outer border along every axis, nearest along x: 2 mm. The outer corners are
    # (2, 2, 2) voxels from the inner ones: √(2² + 4² + 6²) = √56 mm. Dice 2·8/(8 + 216), lesion found: Dice the same.
    outer, inner = np.zeros((2, 10, 10, 10), np.uint8)
    outer[2:8, 2:8, 2:8], inner[4:6, 4:6, 4:6] = 1, 1
    row = case_rows("a", inner, outer, (1, 2, 3), {"s": 1})[0]
    assert_allclose(row["hd_mm"], math.sqrt(56))
    assert_allclose(row["dice"], 16 / 224)
    assert_allclose(row["lesion_dice"], 16 / 224)
    assert_allclose([row["volume_ml"], row["reference_ml"]], [0.048, 1.296])
    assert (row["precision"], row["recall"]) == (1.0, 8 / 216)
    # Of the 216 − 64 = 152 outer border voxels those with an inner voxel straight ahead along x are 2·4 = 8, at 2 mm.
    options = MetricOptions(tolerances_mm=(2.0,))
    row = case_rows("a", inner, outer, (1, 2, 3), {"s": 1}, options=options)[0]
    assert_allclose(row["surface_dice_2mm"], (8 + 8) / (8 + 152))


@pytest.mark.parametrize(("spacing", "shift"), [((1.0, 1.0, 1.0), 6), ((0.5, 1.0, 2.0), 3)])
def test_shifted_ball_in_closed_form(spacing: tuple[float, float, float], shift: int) -> None:
    # A ball of radius R = 20 mm and the same ball d = 6 mm further along z. A convex body and its translate are d
    # apart (Hausdorff), on any grid: the pole has no point of the other nearer, and every point has its own image at d.
    # The lens in common has π(4R + d)(2R − d)²/12 mm³, so Dice is its share of 4πR³/3.
    radius, apart = 20.0, shift * spacing[2]
    axes = [s * np.arange(-int(30 / s), int(30 / s) + 1) for s in spacing]
    ball = (sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= radius**2).astype(np.uint8)
    row = case_rows("a", np.roll(ball, shift, 2), ball, spacing, {"s": 1}, options=MetricOptions(lesions=False))[0]
    assert_allclose(row["hd_mm"], apart)
    lens, whole = math.pi * (4 * radius + apart) * (2 * radius - apart) ** 2 / 12, 4 * math.pi * radius**3 / 3
    assert_allclose(row["dice"], lens / whole, rtol=0.01)
    assert_allclose(row["reference_ml"], whole / 1000, rtol=0.01)
