from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rarevox.networks import DeepMedic, Geometry, HighResNet
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.plan import median_size, plan_patch, require_useful_patch, slice_orders

KEEPS = Geometry(receptive_field=(87, 87, 87), preferred_multiple=4)


def dataset_of(folder: Path, cases: list[dict[str, object]]) -> Dataset:
    content = {
        "root": str(folder),
        "channels": ["a"],
        "labels": {"background": 0, "x": 1},
        "training": [],
        "test": [],
        "folds": 1,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "fingerprint.json").write_text(json.dumps({"per_case": cases}))
    return Dataset.load(folder)


def test_the_median_size_is_along_right_anterior_superior(tmp_path: Path) -> None:
    """Stored as (S, L, A), so R takes the second size and spacing, A the third, S the first."""
    data = dataset_of(tmp_path, [{"size": [10, 20, 30], "spacing_mm": [3.0, 1.0, 2.0], "orientation": "SLA"}])
    assert median_size(data, None) == [20, 30, 10]
    assert median_size(data, [1.0, 1.0, 1.0]) == [20, 60, 30]


def test_small_volumes_are_taken_nearly_whole(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [{"size": [36, 50, 35], "spacing_mm": [1.0] * 3, "orientation": "RAS"}])
    patch = plan_patch(data, [40, 40, 40], KEEPS, 0, None)
    assert all(n % 4 == 0 for n in patch)
    assert all(n <= m + 3 for n, m in zip(patch, (36, 50, 35), strict=True))
    assert 0.8 * 40**3 <= math.prod(patch) <= 1.05 * 40**3


def test_sizes_that_run_fastest_come_before_the_last_voxels(tmp_path: Path) -> None:
    """Of 35×50×36 voxels a network that is fast in sixteens is shown 32×48×32."""
    data = dataset_of(tmp_path, [{"size": [35, 50, 36], "spacing_mm": [1.0] * 3, "orientation": "RAS"}])
    network = HighResNet(in_channels=1, out_channels=2)
    assert plan_patch(data, [48, 48, 48], network.geometry, 0, None) == [32, 48, 32]
    flat = dataset_of(tmp_path, [{"size": [35, 50, 9], "spacing_mm": [1.0] * 3, "orientation": "RAS"}])
    assert plan_patch(flat, [48, 48, 48], network.geometry, 0, None) == [32, 48, 9]


def test_large_volumes_keep_the_overlay_s_patch(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [{"size": [240, 240, 155], "spacing_mm": [1.0] * 3, "orientation": "LPS"}])
    assert plan_patch(data, [40, 40, 40], KEEPS, 0, None) == [40, 40, 40]


def test_valid_networks_never_see_more_padding_than_they_must(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [{"size": [20, 100, 10], "spacing_mm": [1.0] * 3, "orientation": "RAS"}])
    geometry = DeepMedic(in_channels=1, out_channels=2).geometry
    patch = plan_patch(data, [75, 75, 75], geometry, 0, None)
    assert geometry.accepts(patch)
    assert patch == [69, 75, 60]


def test_slices_are_planned_along_the_axis_that_they_are_cut(tmp_path: Path) -> None:
    """Volumes of 200×30×180 (R, A, S) with 5 mm along A are cut into 30 coronal slices of 200×180."""
    data = dataset_of(tmp_path, [{"size": [200, 30, 180], "spacing_mm": [1.0, 5.0, 1.0], "orientation": "RAS"}])
    assert median_size(data, None, "auto") == [200, 180, 30]
    assert median_size(data, None, "axial") == [200, 30, 180]
    assert median_size(data, [1.0, 1.0, 1.0], "auto") == [200, 150, 180]  # resampled, none is larger than axial
    keeps = Geometry(receptive_field=(87, 87, 1), preferred_multiple=(4, 4, 1))
    wide = plan_patch(data, [96, 96, 1], keeps, 0, None, "auto")
    assert 96 * 96 <= math.prod(wide) <= 1.05 * 96 * 96
    assert wide[2] == 1  # never more slices
    small = dataset_of(tmp_path, [{"size": [40, 200, 90], "spacing_mm": [1.0, 1.0, 1.0], "orientation": "RAS"}])
    patch = plan_patch(small, [96, 96, 1], keeps, 0, None, "axial")
    assert patch[0] == 40
    assert patch[1] > 200 - 4 or 0.9 * 96 * 96 < 40 * patch[1] <= 1.05 * 96 * 96  # what R saves goes to A
    assert patch[2] == 1


def test_the_orders_of_a_cohort_on_slices(tmp_path: Path) -> None:
    """5 mm along R, and along S: sagittal slices put R last, axial ones leave it first."""
    cases = [
        {"size": [30, 200, 180], "spacing_mm": [5.0, 1.0, 1.0], "orientation": "RAS"},
        {"size": [200, 200, 30], "spacing_mm": [1.0, 1.0, 5.0], "orientation": "RAS"},
    ]
    assert slice_orders(dataset_of(tmp_path, cases[:1]), None, "auto") == {(1, 2, 0)}
    assert slice_orders(dataset_of(tmp_path, cases), None, "auto") == {(1, 2, 0), (0, 1, 2)}
    assert slice_orders(dataset_of(tmp_path, cases), [1.0, 1.0, 1.0], "auto") == {(0, 1, 2)}
    assert slice_orders(dataset_of(tmp_path, []), None, "coronal") == {(0, 2, 1)}


def test_a_patch_of_padding_is_refused(tmp_path: Path) -> None:
    """Of volumes of 36×50×35: 128 and twice what the largest takes are the bounds, whichever is more."""
    data = dataset_of(tmp_path, [{"size": [36, 50, 35], "spacing_mm": [1.0] * 3, "orientation": "RAS"}])
    require_useful_patch(data, [128, 104, 64], KEEPS, None)
    with pytest.raises(RequestError, match=r"5000 voxels along axis 0, where no volume has more than 36"):
        require_useful_patch(data, [5000, 32, 32], KEEPS, None)
    deepmedic = DeepMedic(in_channels=1, out_channels=2).geometry
    whole = deepmedic.input_size([36, 50, 35])
    require_useful_patch(data, [2 * n for n in whole], deepmedic, None)
    with pytest.raises(RequestError, match="axis 2"):
        require_useful_patch(data, [*whole[:2], 2 * whole[2] + 1], deepmedic, None)
    finer = [0.25, 0.25, 0.25]  # 144×200×140 voxels
    require_useful_patch(data, [288, 400, 280], KEEPS, finer)
    with pytest.raises(RequestError, match="300 voxels along axis 0"):
        require_useful_patch(data, [300, 400, 280], KEEPS, finer)


def test_no_fingerprint_no_change(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [])
    assert plan_patch(data, [40, 40, 40], KEEPS, 0, None) == [40, 40, 40]
