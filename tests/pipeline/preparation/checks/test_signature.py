"""Signatures: copies of a scan are told from other people's scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rarevox.pipeline.preparation.checks.signature import COPY, GRID, copies, signature
from rarevox.transforms.reader import read_scan


def of(volume: np.ndarray, affine: np.ndarray | None = None) -> np.ndarray:
    low, high = np.percentile(volume, [0.5, 99.5])
    return signature(volume, np.eye(4) if affine is None else affine, low, high)


@pytest.mark.parametrize("shape", [(40, 37, 25), (9, 8, 5), (64, 3, 30), (2, 2, 1)])
def test_any_shape_has_one_of_length_one(shape: tuple[int, ...]) -> None:
    found = of(np.random.default_rng(0).normal(size=shape))
    assert found.shape == (GRID**3,)
    assert float(found @ found) == pytest.approx(1.0, abs=1e-5)


def test_a_constant_volume_resembles_nothing() -> None:
    found = of(np.full((30, 30, 30), 1e6))
    assert not found.any()
    assert copies([found, found]) == []


def test_the_order_of_storage_does_not_count() -> None:
    volume = np.random.default_rng(1).normal(size=(31, 26, 28))
    turned = volume.transpose(2, 0, 1)[:, ::-1]  # stored as (S, L, A)
    affine = np.array([[0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(of(turned, affine), of(volume), atol=1e-6)


def test_unrelated_noise_is_no_copy() -> None:
    rng = np.random.default_rng(2)
    assert copies([of(rng.normal(size=(30, 30, 30))) for _ in range(6)]) == []


def test_pairs_come_once_and_in_order() -> None:
    one, other = np.eye(2, dtype=np.float32)
    assert copies([one, other, one, other]) == [(0, 2, 1.0), (1, 3, 1.0)]
    assert copies([]) == copies([one]) == []


@pytest.mark.data
def test_real_cases_are_no_copies_and_changed_ones_are(data_dir: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = [
        read_scan(path).array[0] for path in sorted((data_dir / "Task04_Hippocampus" / "imagesTr").glob("*.gz"))[::4]
    ]
    signatures = [of(volume) for volume in volumes]
    assert copies(signatures, 0.6) == []  # far below COPY
    for volume, own in zip(volumes, signatures, strict=True):
        noise = rng.normal(0, 0.2 * volume.std(), volume.shape)
        for changed in (3.7 * volume + 12, volume + noise, np.clip(volume, 0, None) ** 0.7):
            assert own @ of(changed) > COPY
