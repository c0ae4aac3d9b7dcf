"""Lesions of all cases by their own size: sums by hand, shards, failures."""

from __future__ import annotations

import math

import numpy as np
from numpy.testing import assert_allclose

from rarevox.pipeline.evaluation.metrics.aggregate import aggregate
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.metrics.size_strata import by_lesion_size

OPTIONS = MetricOptions(lesion_sizes_ml=(0.002, 0.02))


def _lesions(*sizes: int) -> np.ndarray:
    """Rows of so many voxels of 1 mm³, one lesion each."""
    labels = np.zeros((4 * len(sizes), 3, 60), np.uint8)
    for number, size in enumerate(sizes):
        labels[4 * number, 1, :size] = 1
    return labels


def _rows(case: str, prediction: np.ndarray, reference: np.ndarray) -> list[dict]:
    return case_rows(case, prediction, reference, (1, 1, 1), {"s": 1}, options=OPTIONS)


def test_classes_by_hand() -> None:
    # Bounds at 2 and 20 voxels. Case a: lesions of 1, 10 and 40 voxels, the first missed, the second found in half
    # (Dice 2·5/15 = 2/3). Case b: lesions of 1 and 1, both found, and a false one of 4.
    rows = _rows("a", _lesions(0, 5, 40), _lesions(1, 10, 40)) + _rows("b", _lesions(1, 1, 4), _lesions(1, 1, 0))
    strata = by_lesion_size(rows, OPTIONS)
    assert [(t["detected"], t["reference"], t["true"], t["predicted"]) for t in strata.values()] == [
        (2, 3, 2, 2),
        (1, 1, 1, 2),
        (1, 1, 1, 1),
    ]
    assert_allclose([t["dice_mean"] for t in strata.values()], [2 / 3, 2 / 3, 1.0])
    assert_allclose([t["recall"] for t in strata.values()], [2 / 3, 1, 1])
    assert_allclose([t["precision"] for t in strata.values()], [1, 0.5, 1])
    assert [(t["min_ml"], t["max_ml"]) for t in strata.values()] == [(0.0, 0.002), (0.002, 0.02), (0.02, None)]


def test_a_failed_case_is_missed_lesions() -> None:
    reference = _lesions(1, 10)
    rows = failed_rows("a", {"s": 1}, "", reference=reference, spacing_mm=(1, 1, 1), options=OPTIONS)
    strata = by_lesion_size(rows, OPTIONS)
    assert (strata["small"]["reference"], strata["small"]["detected"], strata["small"]["dice_mean"]) == (1, 0, 0.0)
    assert math.isnan(strata["small"]["precision"])
    unknown = failed_rows("b", {"s": 1}, "", options=OPTIONS)
    assert by_lesion_size(rows + unknown, OPTIONS)["medium"]["reference"] == 1


def test_shards_add_up_and_nothing_is_nothing() -> None:
    parts = [_rows("a", _lesions(1, 5), _lesions(1, 9)), _rows("b", _lesions(3, 0), _lesions(2, 30))]
    whole = by_lesion_size(parts[0] + parts[1], OPTIONS)
    for size, total in whole.items():
        for kind in ("reference", "detected", "predicted", "true"):
            assert total[kind] == sum(by_lesion_size(part, OPTIONS)[size][kind] for part in parts)
    empty = np.zeros((3, 3, 3), np.uint8)
    assert by_lesion_size(_rows("a", empty, empty), OPTIONS) == {}
    assert "by_lesion_size" not in aggregate(_rows("a", empty, empty), {"s": 1}, options=OPTIONS)["structures"]["s"]
