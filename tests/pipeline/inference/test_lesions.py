"""Rows of lesions and structures: hand-derived places, and sums that must agree with the map."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rarevox.pipeline.inference.lesions import intensity_rows, lesion_rows, parts_of

TURNED = np.array([[0.0, -2.0, 0.0, 10.0], [1.0, 0.0, 0.0, -5.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def test_places_are_those_of_the_patient() -> None:
    """Voxel (i, j, k) lies at (10 − 2j, i − 5, 3k); it is 1 × 2 × 3 mm, 6 mm³."""
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[1:3, 4, 2] = 3
    (row,) = lesion_rows(labels, {"lesion": 3}, TURNED)
    assert (row["voxels"], row["volume_ml"]) == (2, 0.012)
    assert (row["x_mm"], row["y_mm"], row["z_mm"]) == (2.0, -3.5, 6.0)
    assert [row[f"{a}_{end}"] for a in "ijk" for end in ("first", "last")] == [1, 2, 4, 4, 2, 2]
    assert [row[f"{a}_{end}_mm"] for a in "xyz" for end in ("min", "max")] == [1.0, 3.0, -4.5, -2.5, 4.5, 7.5]


def test_neighbours_by_corner_are_one_lesion_or_two() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert [len(lesion_rows(labels, {"a": 1}, np.eye(4), connectivity=c)) for c in (6, 18, 26)] == [2, 2, 1]
    assert [parts_of(labels, 1, c) for c in (6, 18, 26)] == [2, 2, 1]


def test_rows_agree_with_the_whole_map() -> None:
    random = np.random.default_rng(3)
    labels = (random.random((14, 12, 10)) < 0.06) * random.integers(1, 3, (14, 12, 10))
    probability = random.integers(0, 256, labels.shape).astype(np.uint8)
    structures = {"a": 1, "b": 2, "absent": 5}
    shown = dict.fromkeys(structures, (probability, 255.0))
    rows = lesion_rows(labels, structures, TURNED, probabilities=shown)
    for name, value in structures.items():
        own = [row for row in rows if row["structure"] == name]
        mask = labels == value
        assert [row["number"] for row in own] == list(range(1, len(own) + 1))
        assert [row["voxels"] for row in own] == sorted((row["voxels"] for row in own), reverse=True)
        assert sum(row["voxels"] for row in own) == mask.sum()
        assert len(own) == ndimage.label(mask, np.ones((3, 3, 3)))[1]
        if own:
            total = sum(row["mean_probability"] * row["voxels"] for row in own)
            # Each mean is rounded by at most 0.00005.
            assert total == pytest.approx(probability[mask].sum() / 255, abs=5e-5 * mask.sum())
            assert max(row["peak_probability"] for row in own) == round(probability[mask].max() / 255, 4)


def test_the_region_is_the_one_with_most_voxels() -> None:
    labels, regions = np.zeros((6, 1, 1), int), np.zeros((6, 1, 1), int)
    labels[:4], regions[:6, 0, 0] = 1, [7, 9, 9, 0, 0, 0]
    (row,) = lesion_rows(labels, {"a": 1}, np.eye(4), regions=regions, names={9: "pons"})
    assert (row["region"], row["region_share"]) == ("pons", 0.5)
    (row,) = lesion_rows(labels, {"a": 1}, np.eye(4), regions=regions)
    assert row["region"] == "9"
    (row,) = lesion_rows(labels, {"a": 1}, np.eye(4), regions=np.zeros_like(regions))
    assert (row["region"], row["region_share"]) == ("", 0.0)


def test_statistics_are_those_of_the_voxels() -> None:
    """Of 1, 2, 3, 4, 10: mean 4, median 3, sd √((9 + 4 + 1 + 0 + 36)/5) = √10."""
    labels = np.array([1, 1, 1, 1, 1, 0]).reshape(1, 1, 6)
    image = np.stack([np.array([1.0, 2, 3, 4, 10, 99]), np.arange(6.0)]).reshape(2, 1, 1, 6)
    rows = intensity_rows(labels, {"a": 1, "none": 2}, image, ["t1", "flair"], 0.002)
    assert [(row["structure"], row["channel"]) for row in rows] == [
        ("a", "t1"),
        ("a", "flair"),
        ("none", "t1"),
        ("none", "flair"),
    ]
    assert (rows[0]["mean"], rows[0]["median"], rows[0]["volume_ml"]) == (4.0, 3.0, 0.01)
    assert rows[0]["sd"] == pytest.approx(10**0.5, rel=1e-5)  # six digits are kept
    assert (rows[0]["p5"], rows[0]["p95"]) == (1.2, 8.8)  # linear between the ordered values
    assert rows[2]["mean"] is None


def test_a_union_is_one_structure_with_parts_of_its_own() -> None:
    """Two labels that touch are one part of their union, and the inner one a part by itself."""
    labels = np.zeros((4, 3, 3), int)
    labels[0:2, 1, 1], labels[2, 1, 1] = 7, 250
    rows = lesion_rows(labels, {"whole": (7, 250), "core": (250,)}, np.eye(4))
    assert [(row["structure"], row["voxels"]) for row in rows] == [("whole", 3), ("core", 1)]
    image = np.arange(36.0).reshape(1, 4, 3, 3)
    found = intensity_rows(labels, {"whole": (7, 250), "core": (250,)}, image, ["t1"], 1.0)
    assert [row["mean"] for row in found] == [13.0, 22.0]  # voxels 4, 13 and 22; voxel 22
