"""A small made cohort of nested structures, with label values in no order, as an nnU-Net dataset of regions."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

VALUES = (7, 250, 2)
"""The labels of the three rings, from the outside in."""
REGIONS = {"whole": [2, 7, 250], "core": [2, 250], "hot": [2]}


def write_nested(folder: Path, cases: int = 6, shape: tuple[int, int, int] = (24, 22, 20), seed: int = 0) -> Path:
    """Three balls about one centre, brighter from the outside in, on noise; affines mirrored in turn."""
    random = np.random.default_rng(seed)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    axes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    for number in range(cases):
        centre = random.integers(8, np.array(shape) - 8)
        distance = np.sqrt(((axes - centre[:, None, None, None]) ** 2).sum(0))
        depth = (distance <= 6).astype(int) + (distance <= 4) + (distance <= 2)
        labels = np.array([0, *VALUES], np.uint8)[depth]
        image = random.normal(100, 8, shape) + 40 * depth
        affine = np.diag([-1.0 if number % 2 else 1.0, 1.0, 1.5, 1.0])
        affine[:3, 3] = random.uniform(-50, 50, 3)
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / "imagesTr" / f"case_{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image(labels, affine), folder / "labelsTr" / f"case_{number}.nii.gz")
    content = {
        "channel_names": {"0": "noise"},
        "labels": {"background": 0, **{name: value if len(value) > 1 else value[0] for name, value in REGIONS.items()}},
        "regions_class_order": list(VALUES),
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder
