"""A plain MONAI script for lesions, as a careful user writes it: the peer of `lesions.py`.

UNet, Dice + cross-entropy, half of the patches centred on a lesion, flips and intensity changes, Adam with polynomial
decay over the wall time; sliding window with Gaussian weights over whole scans.

    python benchmarks/lesions_monai.py SCANS.json MINUTES OUT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.utils import set_determinism

PATCH = (48, 48, 48)


def items(folders: list[str], channels: list[str]) -> list[dict[str, str]]:
    """File by key, for each scan."""
    return [
        {**{name: f"{folder}/{name}.nii.gz" for name in channels}, "label": f"{folder}/lesion.nii.gz"}
        for folder in folders
    ]


def read(channels: list[str], *, label: bool) -> list[object]:
    """Transforms from files to a normalised image."""
    keys = [*channels, *(["label"] if label else [])]
    return [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        NormalizeIntensityd(channels, nonzero=True),
        ConcatItemsd(channels, "image"),
        EnsureTyped(["image", *(["label"] if label else [])]),
    ]


def main() -> None:
    """Train and label."""
    began = time.monotonic()
    asked, minutes, out = json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[2]), Path(sys.argv[3])
    set_determinism(0)
    channels = asked["channels"]
    augment = [
        RandCropByPosNegLabeld(["image", "label"], "label", PATCH, pos=1, neg=1, num_samples=2),
        RandFlipd(["image", "label"], 0.5, 0),
        RandScaleIntensityd("image", 0.1, 0.5),
        RandShiftIntensityd("image", 0.1, 0.5),
    ]
    scans = items(asked["train"], channels)
    train = CacheDataset(scans, Compose([*read(channels, label=True), *augment]), progress=False)
    loader = DataLoader(train, batch_size=1, shuffle=True)
    network = UNet(3, len(channels), 2, (16, 32, 64, 128), (2, 2, 2), num_res_units=2, norm="batch")
    loss, optimiser = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.Adam(network.parameters(), 1e-3)
    steps = 0
    while (gone := (time.monotonic() - began) / (60 * minutes)) < 1:
        for batch in loader:
            optimiser.param_groups[0]["lr"] = 1e-3 * max(1 - gone, 0) ** 0.9
            optimiser.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            optimiser.step()
            steps += 1
            if (gone := (time.monotonic() - began) / (60 * minutes)) >= 1:
                break
    print(f"{steps} steps of 2 patches")
    network.eval()
    infer, reading = SlidingWindowInferer((64, 64, 64), 4, 0.5, mode="gaussian"), Compose(read(channels, label=False))
    for folder, item in zip(asked["test"], items(asked["test"], channels), strict=True):
        with torch.inference_mode():
            labels = infer(reading(item)["image"][None], network).argmax(1)[0].numpy().astype(np.uint8)
        affine = nib.load(f"{folder}/lesion.nii.gz").affine
        nib.save(nib.Nifti1Image(labels, affine), out / "maps" / f"{Path(folder).name}.nii.gz")


if __name__ == "__main__":
    main()
