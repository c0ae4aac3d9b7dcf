from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd

from rarevox.transforms import LabelsOnNativeGridd, SlicesLastd


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("axis", ["auto", "axial", "coronal", "sagittal"])
def test_slices_are_last_and_find_their_way_back(tmp_path, order: tuple[int, ...], axis: str) -> None:
    """A file whose axes run along ``order`` of R, A, S, 4 mm along A (so ``auto`` is coronal) and 1 mm otherwise."""
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    affine = np.zeros((4, 4))
    for column, world in enumerate(order):
        affine[world, column] = (1, 4, 1)[world] * (-1 if column == 1 else 1)
    affine[:, 3] = (3, -7, 11, 1)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "a.nii.gz")
    load = Compose(
        [
            LoadImaged("image", image_only=True),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            SlicesLastd("image", axis),
        ]
    )
    data = load({"image": str(tmp_path / "a.nii.gz")})
    across = {"auto": 1, "axial": 2, "coronal": 1, "sagittal": 0}[axis]
    size = [labels.shape[order.index(world)] for world in range(3)]
    assert data["image"].shape[3] == size[across]
    column = np.asarray(data["image"].affine)[:3, 2]
    assert np.flatnonzero(column).tolist() == [across]
    data["pred"] = data["image"].to(torch.uint8)
    assert np.array_equal(LabelsOnNativeGridd("pred", [0, 1, 2])(data)["pred"][0].numpy(), labels)


def test_every_key_is_cut_like_the_first() -> None:
    from monai.data import MetaTensor

    affine = torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0]))
    values = torch.arange(24.0).reshape(1, 2, 3, 4)
    data = {"image": MetaTensor(values, affine=affine), "label": MetaTensor(values + 1, affine=torch.eye(4))}
    found = SlicesLastd(["image", "mask", "label"], allow_missing_keys=True)(data)
    assert torch.equal(found["image"].as_tensor() + 1, found["label"].as_tensor())
    assert found["image"].shape == (1, 3, 4, 2)
    assert torch.equal(data["image"].as_tensor(), values)  # the input is left as it is


def test_another_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="slice_axis is 'oblique'; expected auto, sagittal, coronal, axial"):
        SlicesLastd("image", "oblique")
