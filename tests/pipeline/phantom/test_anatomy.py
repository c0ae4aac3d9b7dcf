"""The anatomy: tissue shares, ventricles and places of lesions, from the template."""

from __future__ import annotations

import importlib

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.phantom import anatomy
from rarevox.pipeline.phantom.anatomy import Atlas

from .test_fields import jacobian_determinant


@pytest.mark.parametrize("seed", range(8))
def test_no_subject_is_folded_or_mirrored(seed: int) -> None:
    shape = anatomy.subject_shape(2.0)
    positions = anatomy.template_positions(np.random.default_rng(seed), shape, 2.0)
    determinant = jacobian_determinant(positions, 2.0)
    assert determinant.min() > 0
    assert 0.6 < determinant.mean() < 1.5  # heads stay head-sized
    assert determinant.std() > 0.05  # and are not merely scaled


def test_the_head_affine_is_a_small_proper_map() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        matrix = anatomy.head_affine(generator)
        # Rotations and unit shears have determinant 1, so only the scales count: 0.92³ = 0.7787, 1.08³ = 1.2597.
        assert 0.7786 < np.linalg.det(matrix) < 1.2598
        assert abs(matrix - np.eye(3)).max() < 0.35


def test_the_packaged_files_are_what_nilearn_gives() -> None:
    direct, origin = anatomy.load_template()
    for name, image in anatomy._template_by_nilearn().items():
        np.testing.assert_allclose(direct[name], np.asarray(image.dataobj), atol=1e-6)
        np.testing.assert_array_equal(image.affine[:3, 3], origin)
        np.testing.assert_array_equal(image.affine[:3, :3], np.eye(3))


def test_without_the_packaged_files_nilearn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    blank = nibabel.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4))
    monkeypatch.setattr(anatomy, "_FILES", {"t1": "moved.nii.gz"})
    monkeypatch.setattr(anatomy, "_template_by_nilearn", lambda: asked.append(1) or {"t1": blank})
    anatomy.load_template()
    assert asked


def test_without_nilearn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"nilearn.*pip install"):
        anatomy.build_atlas(2.0)


def test_tissue_shares_fill_the_brain(template: dict[str, np.ndarray]) -> None:
    inside = template["brain"] > 0
    total = template["grey"] + template["white"] + template["csf"]
    assert np.quantile(abs(total[inside] - 1), 0.99) < 0.02
    assert total[~inside].max() == 0
    assert 1500 < inside.sum() / 1000 < 2100  # ml: a skull-stripped brain with its CSF


def test_the_ventricles_are_the_lateral_ventricles(template: dict[str, np.ndarray]) -> None:
    share = template["ventricles"]
    inside = share > 0.5
    assert 12 < inside.sum() / 1000 < 25  # ml; healthy adults: about 10 to 30
    _, pieces = ndimage.label(inside)
    assert pieces <= 2
    x, y, z = (np.broadcast_to(template[axis], inside.shape)[inside] for axis in "xyz")
    # Landmarks in MNI space: bodies, frontal horns and trigones; nothing in the temporal lobe, cisterns or cerebellum.
    assert x.min() >= -40 and x.max() <= 40 and y.min() >= -65 and y.max() <= 40 and z.min() >= -10 and z.max() <= 35

    def at(*mni: float) -> float:
        index = tuple(int(p - template[axis].min()) for p, axis in zip(mni, "xyz", strict=True))
        return float(share[index])

    for side in (-1, 1):
        assert at(side * 12, 0, 22) > 0.5 and at(side * 11, 22, 8) > 0.5 and at(side * 26, -46, 8) > 0.5
    for elsewhere in ((0, -15, 2), (0, -40, -2), (0, -50, -35), (40, 20, 0)):
        assert at(*elsewhere) < 0.5
    # The template is symmetric (x = −98 … 98), so its ventricles are.
    np.testing.assert_allclose(share, share[::-1], atol=1e-6)


def test_warping_by_the_identity_gives_the_atlas(atlas: Atlas) -> None:
    shape = atlas.maps.shape[1:]
    grid = np.meshgrid(*(o + np.arange(n) for o, n in zip(atlas.origin_mm, shape, strict=True)), indexing="ij")
    warped = anatomy.warp_atlas(atlas, np.stack(grid).astype(np.float32))
    assert list(warped) == list(anatomy.CHANNELS)
    for channel, name in enumerate(warped):
        np.testing.assert_allclose(warped[name], atlas.maps[channel].numpy(), atol=1e-3)


def test_lesion_places_keep_to_the_cerebrums_white_matter(template: dict[str, np.ndarray]) -> None:
    low = np.broadcast_to(template["z"] <= 2, template["near"].shape)
    assert template["near"][low].max() == 0 and template["deep"][low].max() == 0
    assert template["white"][template["deep"] > 0].min() > 0.7
    # exp(−d/4 mm): a share of one half is ln 2 · 4 = 2.8 mm from the ventricles, and deep begins beyond 8 mm.
    assert not ((template["near"] > 0.14) & (template["deep"] > 0)).any()  # exp(−8/4) = 0.135
