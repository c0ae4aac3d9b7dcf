from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

from rarevox.transforms import CropToContentd, LabelsOnNativeGridd
from rarevox.transforms.native_grid import labels_on_grid


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], spacing: float = 1.0) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign * spacing
    affine[:3, 3] = (12.5, -3.0, 40.0)
    return affine


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_orientation_and_crop_are_undone_voxel_by_voxel(tmp_path, order, signs) -> None:
    """A map is loaded as if it were a prediction: reoriented, cropped, brought back, it is the file's own voxels."""
    labels = np.zeros((6, 7, 5), np.uint8)
    labels[2:5, 1:4, 1:4] = np.random.default_rng(0).integers(1, 3, (3, 3, 3))
    nib.save(nib.Nifti1Image(labels, affine_of(order, signs, 2.0)), tmp_path / "a.nii.gz")
    load = Compose(
        [
            LoadImaged("image", image_only=True),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            CropToContentd("image"),
        ]
    )
    data = load({"image": str(tmp_path / "a.nii.gz")})
    assert data["image"].shape[1:].numel() < labels.size
    data["pred"] = data["image"].to(torch.uint8)
    back = LabelsOnNativeGridd("pred", [0, 1, 2])(data)["pred"]
    assert np.array_equal(back[0].numpy(), labels)


def test_scores_are_reduced_and_mapped_to_label_values() -> None:
    image = MetaTensor(torch.zeros(1, 2, 2, 2), affine=torch.eye(4), meta={"spatial_shape": [2, 2, 2]})
    image.meta["original_affine"] = np.eye(4)
    scores = torch.zeros(3, 2, 2, 2)
    scores[2, 0, 1, 1] = 1
    scores[1, 1, 0, 0] = 1
    found = LabelsOnNativeGridd("pred", [0, 4, 300])({"image": image, "pred": scores})["pred"]
    expected = torch.zeros(1, 2, 2, 2, dtype=torch.int32)
    expected[0, 0, 1, 1], expected[0, 1, 0, 0] = 300, 4
    assert torch.equal(found, expected)


def test_resampling_back_recovers_a_smooth_shape(tmp_path) -> None:
    """The distance to a ball's surface (radius 8 mm, off centre) is nearly linear, so taking it to a 2 mm grid and back
    must give the ball but for surface voxels: Dice above 0.98. A shift by half a voxel would cost 0.06."""
    grid = (
        np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")) - np.array([10.0, 12.0, 11.0])[:, None, None, None]
    )
    depth = (8 - np.sqrt((grid**2).sum(0))).astype(np.float32)
    inside = depth > 0
    nib.save(nib.Nifti1Image(depth, affine_of((1, 0, 2), (-1, 1, 1))), tmp_path / "a.nii.gz")
    steps = [
        LoadImaged("image", image_only=True),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=(2, 2, 2)),
    ]
    data = Compose(steps)({"image": str(tmp_path / "a.nii.gz")})
    soft = data["image"].as_tensor()
    data["pred"] = torch.cat([-soft, soft])
    back = LabelsOnNativeGridd("pred", [0, 1])(data)["pred"][0].numpy()
    assert back.shape == inside.shape
    assert 2 * (back * inside).sum() / (back.sum() + inside.sum()) > 0.98


def test_slabs_do_not_change_the_result() -> None:
    scores = torch.randn(3, 6, 5, 7)
    model, native = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([1.0, 1.3, 0.9, 1.0])
    whole = labels_on_grid(scores, model, (11, 8, 15), native, slab=100)
    assert torch.equal(labels_on_grid(scores, model, (11, 8, 15), native, slab=1), whole)


def test_outside_the_model_grid_is_background() -> None:
    scores = torch.stack([torch.zeros(2, 2, 2), torch.ones(2, 2, 2)])
    shifted = np.eye(4)
    shifted[:3, 3] = -3.4
    found = labels_on_grid(scores, np.eye(4), (8, 8, 8), shifted)
    assert int(found.sum()) == 8
    assert int(found[3:5, 3:5, 3:5].sum()) == 8


def test_class_indices_on_an_oblique_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="ask the inferer for scores"):
        labels_on_grid(torch.zeros(1, 2, 2, 2, dtype=torch.uint8), np.eye(4), (2, 2, 2), np.diag([1.5, 1, 1, 1]))
