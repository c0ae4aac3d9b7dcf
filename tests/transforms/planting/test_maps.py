from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.transforms.planting.donors import Donor
from rarevox.transforms.planting.maps import map_files, nearest, shapes_of


def written(folder: Path, mask: np.ndarray, edges: tuple[float, float, float], name: str = "a.nii.gz") -> Path:
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.diag([*edges, 1.0])), folder / name)
    return folder / name


def shapes(file: Path, edges: tuple[float, float, float] | None) -> list[Donor]:
    affine = None if edges is None else np.diag([*edges, 1.0])
    return shapes_of(file, affine, label=1, sizes=(1, 9999), extent=(99, 99, 99))


def shape(donor: Donor) -> np.ndarray:
    mask = np.zeros(donor.size, bool)
    mask[tuple(donor.at[donor.classes > 0].T)] = True
    return mask


def test_shapes_come_in_the_size_that_they_have(tmp_path: Path) -> None:
    """A lesion of 3×1×1 voxels of 2 mm is one of 6×2×2 voxels of 1 mm, and of 3×2×1 of 2×1×2 mm."""
    mask = np.zeros((9, 9, 9), bool)
    mask[2:5, 4, 4] = True
    file = written(tmp_path, mask, (2, 2, 2))
    for edges, size in (
        ((1, 1, 1), (6, 2, 2)),
        ((2, 1, 2), (3, 2, 1)),
        ((2, 2, 2), (3, 1, 1)),
        ((1.9, 2, 2), (3, 1, 1)),
    ):
        (donor,) = shapes(file, edges)
        assert donor.size == size and shape(donor).all(), edges


def test_volumes_are_kept_on_average() -> None:
    """Of random masks to voxels of three quarters the edge: each new voxel is drawn from one place, so that the share
    of the mask is kept within five standard deviations of its count."""
    mask = np.random.default_rng(0).random((40, 40, 40)) < 0.2
    found = nearest(mask, np.array([4 / 3, 4 / 3, 0.5]))
    assert found.shape == (53, 53, 20)
    assert abs(found.mean() - mask.mean()) < 5 * np.sqrt(0.2 * 0.8 / (40 * 40 * 20))


def test_axes_run_as_those_of_the_training_cases(tmp_path: Path) -> None:
    """A map with its first axis to the left comes mirrored; for slices across the first axis, permuted."""
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:5, 4, 4] = mask[2, 4, 5] = 7
    nib.save(nib.Nifti1Image(mask, np.diag([-1.0, 1.0, 1.0, 1.0])), tmp_path / "a.nii")
    expected = np.zeros((3, 1, 2), bool)
    expected[:, 0, 0] = expected[2, 0, 1] = True
    for affine in (None, np.eye(4)):
        (donor,) = shapes_of(tmp_path / "a.nii", affine, label=1, sizes=(1, 9), extent=(9, 9, 9))
        np.testing.assert_array_equal(shape(donor), expected)
    (donor,) = shapes_of(tmp_path / "a.nii", np.eye(4)[:, [1, 2, 0, 3]], label=1, sizes=(1, 9), extent=(9, 9, 9))
    np.testing.assert_array_equal(shape(donor), expected.transpose(1, 2, 0))


def test_sizes_and_extents_are_those_on_the_training_grid(tmp_path: Path) -> None:
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    file = written(tmp_path, mask, (3, 3, 3))
    for sizes, extent, found in (((1, 1), (3, 3, 3), 0), ((27, 27), (3, 3, 3), 1), ((27, 27), (3, 3, 2), 0)):
        assert len(shapes_of(file, np.eye(4), label=1, sizes=sizes, extent=extent)) == found


def test_voxels_that_are_no_number_are_no_lesion_and_axes_of_one_are_none(tmp_path: Path) -> None:
    values = np.full((6, 6, 6, 1), np.nan, np.float32)
    values[2:4, 2:4, 2:4] = 0
    values[2, 2, 2] = 1
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    (found,) = shapes(tmp_path / "a.nii.gz", (1, 1, 1))
    assert found.voxels == 1


def test_what_is_no_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no lesion maps"):
        map_files(tmp_path, 40)
    (tmp_path / "b.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"b\.nii\.gz is no lesion map"):
        shapes(tmp_path / "b.nii.gz", (1, 1, 1))
    with pytest.raises(ValueError, match="4 axes"):
        shapes(written(tmp_path, np.ones((3, 3, 3, 2), bool), (1, 1, 1), "c.nii"), (1, 1, 1))
