"""Statistics of training scans in the batch norms of the kept model, with which later scans are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rarevox.pipeline.build import build, parsed
from rarevox.pipeline.bundle import STATISTICS_FILE
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.scan_statistics import ScanStatistics, Statistics
from rarevox.pipeline.training.kept.checkpoint import load_tensors, load_weights, save_tensors
from rarevox.pipeline.words import counted

SCANS = 16
"""Training scans that are looked at, evenly picked."""


def load_statistics(path: str | Path) -> Statistics | None:
    """The statistics that :func:`write_statistics` wrote; None where there are none.

    Raises:
        RequestError: the file is damaged, or holds something else.
    """
    if not Path(path).exists():
        return None
    found = load_tensors(path)
    if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
        raise RequestError(f"{path} holds no statistics by layer; train again, or remove it")
    return found


def forget_statistics(folder: Path) -> None:
    """Before another model is kept, of which they would not be."""
    (folder / STATISTICS_FILE).unlink(missing_ok=True)


def write_statistics(folder: Path, config: Mapping[str, Any], parser: Any) -> None:
    """Write ``models/scan_statistics.pt`` of a run that asks for it (``scan_statistics``), from 16 training scans.

    Args:
        folder: the run, with its model.
        config: of the training.
        parser: MONAI's, with the training's cases.
    """
    share = config.get("scan_statistics") or 0.0  # runs of earlier versions have no such key
    cases = parsed(parser, "train#cases")
    if not share or not len(cases) or (folder / STATISTICS_FILE).is_file():
        return
    precision, count = parsed(parser, "precision"), min(SCANS, len(cases))
    network = load_weights(build(config, "network_def"), folder / "models" / "model.pt").to(precision.device)
    statistics = ScanStatistics(share, config["patch_size"])
    if not statistics.applies_to(network):
        console.print("scan_statistics does nothing: the network has no batch norms with running statistics")
        return
    console.print(f"statistics of {counted(count, 'training scan')} in its batch norms, to compare scans with")

    def forward(block: torch.Tensor) -> torch.Tensor:
        with precision.autocast():
            return network(block)

    images = (cases[k * len(cases) // count]["image"].float() for k in range(count))
    save_tensors(statistics.reference_of(images, network, forward), folder / STATISTICS_FILE)
