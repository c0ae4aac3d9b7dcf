"""A loss of rarevox in a training loop of plain PyTorch, beside cross-entropy.

python examples/loss_in_your_loop.py                    a noisy volume with a ball that fills a thousandth of it
python examples/loss_in_your_loop.py IMAGE LABELS       a scan and its label map, on one grid, small enough to train on
"""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from rarevox.losses import CrossEntropyLoss, GeneralizedDiceLoss, TableLoss, hard_sums

STEPS = 40


def ball() -> tuple[Tensor, Tensor]:
    """An image (1, 1, 32, 32, 32) and its labels: a ball of 33 voxels, three deviations of the noise above the rest."""
    axes = torch.stack(torch.meshgrid(*[torch.arange(32)] * 3, indexing="ij"))
    labels = ((axes - torch.tensor([11, 17, 20])[:, None, None, None]) ** 2).sum(0) <= 4
    return (torch.randn(32, 32, 32) + 3 * labels)[None, None], labels[None, None].long()


def read(image: str, labels: str) -> tuple[Tensor, Tensor]:
    """The same from files: intensities of mean 0 and deviation 1, everything that is labelled as one structure."""
    voxels = np.asarray(nib.load(image).dataobj, np.float32)
    structure = np.asarray(nib.load(labels).dataobj) > 0
    return torch.tensor((voxels - voxels.mean()) / voxels.std())[None, None], torch.tensor(structure)[None, None].long()


def train(loss: TableLoss, image: Tensor, labels: Tensor) -> float:
    """Train a small network; the Dice of the labels that it ends with."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 3, padding=1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(STEPS):
        optimizer.zero_grad()
        # Logits (B, C, *spatial) and labels (B, 1, *spatial): no softmax before, no one-hot.
        loss(network(image), labels).backward()
        optimizer.step()
    table = hard_sums(network(image).argmax(1, keepdim=True), labels, num_classes=2)
    return float(2 * table.intersection[0, 1] / (table.probability + table.reference)[0, 1])


if __name__ == "__main__":
    torch.manual_seed(0)
    image, labels = read(*sys.argv[1:3]) if len(sys.argv) > 2 else ball()
    print(f"1 voxel in {labels.numel() / labels.sum():.0f} belongs to the structure; Dice after {STEPS} steps:")
    for loss in (GeneralizedDiceLoss(), CrossEntropyLoss()):
        print(f"{type(loss).__name__}: {train(loss, image, labels):.2f}")
