"""N4: a shading that was put on comes off, the mean stays, and what is no raw MRI is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rarevox.transforms.intensity import n4
from rarevox.transforms.intensity.n4 import N4Correctedd, NegativeIntensityError, n4_corrected

SHAPE = (48, 40, 36)


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Two tissues (60 and 100) in blocks of 6 voxels within an empty frame, and a little noise."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 2, (8, 7, 6)).repeat(6, 0).repeat(6, 1).repeat(6, 2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    found = np.where(blocks == 1, 100.0, 60.0) + rng.normal(0, 1, SHAPE)
    frame = np.zeros(SHAPE, bool)
    frame[4:-4, 4:-4, 4:-4] = True
    return np.where(frame, found, 0).astype(np.float32)


@pytest.fixture(scope="module")
def shading() -> np.ndarray:
    """A factor from 0.6 to 1.4 from left to right."""
    return np.linspace(0.6, 1.4, SHAPE[0], dtype=np.float32)[:, None, None] * np.ones(SHAPE, np.float32)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few iterations, for what holds after any number of them."""
    monkeypatch.setattr(n4, "ITERATIONS", (2, 2))


def residual(volume: np.ndarray, tissue: np.ndarray) -> float:
    """The variation of what multiplies the tissue: standard deviation ÷ mean over the inside."""
    ratio = volume[tissue > 0] / tissue[tissue > 0]
    return float(ratio.std() / ratio.mean())


def test_a_shading_comes_off(tissue: np.ndarray, shading: np.ndarray) -> None:
    shaded = tissue * shading
    corrected = n4_corrected(shaded, (1.0, 1.0, 1.0))
    assert residual(shaded, tissue) > 0.19
    assert residual(corrected, tissue) < 0.3 * residual(shaded, tissue)
    assert corrected.dtype == np.float32
    np.testing.assert_array_equal(corrected == 0, tissue == 0)


@pytest.mark.usefixtures("few")
def test_the_mean_inside_the_mask_stays(tissue: np.ndarray, shading: np.ndarray) -> None:
    shaded, mask = tissue * shading, tissue > 0
    corrected = n4_corrected(shaded, (1, 1, 1), mask)
    assert corrected[mask].mean() == pytest.approx(shaded[mask].mean(), rel=1e-4)
    assert np.abs(corrected / np.where(mask, shaded, 1) - 1)[mask].max() > 0.01  # and it is another volume


def test_an_even_scan_changes_little(tissue: np.ndarray) -> None:
    assert residual(n4_corrected(tissue, (1, 1, 1)), tissue) < 0.05


def test_negative_values_are_refused() -> None:
    with pytest.raises(NegativeIntensityError, match=r"smallest value is -1; N4 corrects raw MRI"):
        n4_corrected(np.array([[[-1.0, 2.0]]]), (1, 1, 1))


def test_an_empty_mask_leaves_the_scan(tissue: np.ndarray) -> None:
    np.testing.assert_array_equal(n4_corrected(tissue, (1, 1, 1), np.zeros(SHAPE)), tissue)


@pytest.mark.usefixtures("few")
def test_the_transform_takes_spacing_channels_and_mask(tissue: np.ndarray, shading: np.ndarray) -> None:
    affine = torch.diag(torch.tensor([-2.0, 1.0, 3.0, 1.0]))
    image = MetaTensor(torch.as_tensor(np.stack([tissue * shading, tissue])), affine=affine)
    mask = torch.as_tensor((tissue > 0)[None].astype(np.uint8))
    found = N4Correctedd("image")({"image": image, "mask": mask, "case": "c"})
    assert torch.equal(found["image"].affine, image.affine)
    for channel in range(2):
        wanted = n4_corrected(np.asarray(image[channel]), (2.0, 1.0, 3.0), tissue > 0)
        np.testing.assert_allclose(np.asarray(found["image"][channel]), wanted, rtol=1e-5)
