"""The sampler in a MONAI data loader: every patch holds foreground, whatever share of the scan it fills.

python examples/patches_in_monai.py                   four noisy volumes, each with a ball of 33 voxels
python examples/patches_in_monai.py IMAGE LABELS      a scan and its label map of whole numbers, 0 the background
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd, Transform
from monai.utils import set_determinism

from rarevox.transforms import ClassBalancedSampler, IndexForegroundd, RandForegroundPatchd

KEYS = ("image", "label")
SIZE = (16, 16, 16)


def make(folder: Path) -> list[dict[str, Path]]:
    """Four cases of 64³ voxels as files."""
    random = np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*[np.arange(64)] * 3, indexing="ij"))
    cases = [{key: folder / f"{key}_{number}.nii.gz" for key in KEYS} for number in range(4)]
    for case in cases:
        ball = ((axes - random.integers(2, 62, 3)[:, None, None, None]) ** 2).sum(0) <= 4
        nib.save(
            nib.Nifti1Image((random.normal(size=ball.shape) + 3 * ball).astype(np.float32), np.eye(4)), case["image"]
        )
        nib.save(nib.Nifti1Image(ball.astype(np.uint8), np.eye(4)), case["label"])
    return cases


def foreground(cases: list[dict[str, Path]], *draw: Transform) -> torch.Tensor:
    """How many voxels of foreground each of 100 patches holds that a MONAI loader gives out."""
    transform = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS), *draw])
    cases = CacheDataset(
        cases * (100 // len(cases)), transform, num_workers=0, progress=False
    )  # reads and indexes once
    counts = [(batch["label"] > 0).flatten(1).sum(1) for batch in DataLoader(cases, batch_size=4, shuffle=True)]
    return torch.cat(counts)


if __name__ == "__main__":
    set_determinism(0)
    sampler = ClassBalancedSampler()
    ours = (IndexForegroundd("label", sampler=sampler), RandForegroundPatchd(KEYS, SIZE, sampler=sampler))
    with tempfile.TemporaryDirectory() as folder:
        given = [{"image": Path(sys.argv[1]), "label": Path(sys.argv[2])}] if len(sys.argv) > 2 else make(Path(folder))
        for name, draw in (("RandForegroundPatchd", ours), ("RandSpatialCropd", (RandSpatialCropd(KEYS, SIZE),))):
            held = foreground(given, *draw)
            print(f"{name}: {(held > 0).float().mean():.0%} of {len(held)} patches hold foreground")
