"""A clean case in files, into which faults are planted; a prepared dataset with a plan to edit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.preparation.cases import Case

SHAPE = (8, 7, 6)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A clean case: an empty surround of 0, noise within, a label of 1 and 2 in the middle, and a mask."""
    rng = np.random.default_rng(0)
    image = np.zeros(SHAPE, np.float32)
    image[1:-1, 1:-1, 1:-1] = rng.normal(100, 10, (6, 5, 4))
    label = np.zeros(SHAPE, np.uint8)
    label[3, 3, 2:4], label[4, 4, 3] = 1, 2
    return Case(
        "c",
        (save(tmp_path / "t1.nii.gz", image), save(tmp_path / "t2.nii.gz", image * 2)),
        save(tmp_path / "label.nii.gz", label),
        save(tmp_path / "mask.nii.gz", (image > 0).astype(np.uint8)),
        "c",
    )


@pytest.fixture
def dataset(dataset_dir: Path, tmp_path: Path) -> Dataset:
    """The prepared synthetic cases (22 × 20 × 18 voxels of 1 × 1 × 1.5 mm), with a plan of their own to edit."""
    for name in ("dataset.json", "fingerprint.json", "plan.yaml"):
        (tmp_path / name).write_bytes((dataset_dir / name).read_bytes())
    return Dataset.load(tmp_path)
