"""HighResNet over a whole volume: one pass, or tiles where memory is short, with the same result.

python examples/dense_inference.py             a volume of noise
python examples/dense_inference.py SCAN        a scan of one channel (NIfTI); writes SCAN's labels to labels.nii.gz
"""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import torch

from rarevox.networks import HighResNet
from rarevox.pipeline.inference import DenseInferer


def read(path: str) -> tuple[torch.Tensor, np.ndarray]:
    """A scan as (1, 1, X, Y, Z) of mean 0 and deviation 1, and its affine."""
    file = nib.load(path)
    voxels = np.asarray(file.dataobj, np.float32)
    return torch.tensor((voxels - voxels.mean()) / voxels.std())[None, None], file.affine


def main(path: str | None = None) -> None:
    """One pass over a scan, and the same in tiles within a budget of memory."""
    torch.manual_seed(0)
    scan, affine = (torch.randn(1, 1, 160, 40, 40), np.eye(4)) if path is None else read(path)
    # The weights are random here; network.load_state_dict(torch.load("run/models/model.pt")) takes those of a run, into
    # the network that its configs/inference.yaml names (`network_def`), of scans normalised as it says.
    network = HighResNet(in_channels=1, out_channels=3, width=4).eval()
    print(f"the network sees {network.geometry.receptive_field} voxels and keeps the size")

    whole = DenseInferer(network.geometry)
    logits = whole(scan, network)
    print(f"{tuple(scan.shape)} → {tuple(logits.shape)} in {whole.notes['tiles']} tile")

    budget = 0.8 * network.peak_bytes(itemsize=4) * scan.numel() / 1e9  # GB; one pass over the scan would need more
    tiled = DenseInferer(network.geometry, mode="exact", memory_gb=budget)
    apart = (tiled(scan, network) - logits).abs().max() / logits.std()
    print(f"with {1000 * budget:.0f} MB in {tiled.notes['tiles']} tiles: differs by {apart:.0e} standard deviations")

    labels = DenseInferer(network.geometry, reduce="labels")(scan, network)  # no class map of the whole scan is held
    print(f"labels {labels.dtype}, voxels of each class {torch.bincount(labels.flatten(), minlength=3).tolist()}")
    if path is not None:
        nib.save(nib.Nifti1Image(labels[0, 0].numpy(), affine), "labels.nii.gz")


if __name__ == "__main__":
    main(*sys.argv[1:2])
