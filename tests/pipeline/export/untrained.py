"""A run of any overlay without a training: its bundle, and weights as after one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import write_bundle
from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.training.kept.checkpoint import save_weights


def untrained_run(folder: Path, dataset: Path, network: str, settings: Sequence[str] = ()) -> Path:
    """Write the run of ``configs/networks/NETWORK.yaml``.

    The weights are drawn, and the running statistics of batch norms too, so that no number of the network is trivial.
    """
    data = Dataset.load(dataset)
    config = compose("train", dataset=data, network=network, settings=settings).config
    write_bundle(folder, config, data)
    torch.manual_seed(0)
    model = build(config, "network_def")
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    save_weights(model, folder / "models" / "model.pt")
    return folder
