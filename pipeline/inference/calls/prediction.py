"""What a call does with each scan, as it is sent to whoever does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.inference.calls.networks import Networks
from rarevox.pipeline.inference.outputs.asked import Asked, outputs_of
from rarevox.pipeline.starting import importing

if TYPE_CHECKING:
    from rarevox.pipeline.inference.calls.station import Station


@dataclass(frozen=True)
class Prediction:
    """What a call does with each scan, in plain values: a :class:`rarevox.pipeline.workers.job.Job`.

    Attributes:
        networks: that segment it.
        asked: what is written of each scan.
        folder: where to.
        made: see :func:`rarevox.pipeline.inference.calls.kept.origin`.
        threads: for the network on the CPU; 0 leaves it to PyTorch.
    """

    networks: Networks
    asked: Asked
    folder: str
    made: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0

    def open(self) -> Station:
        """Load the networks.

        Raises:
            RequestError: see :class:`rarevox.pipeline.inference.segment.Segmenter`.
        """
        with importing():  # PyTorch, MONAI and the networks, which a process that only hands out scans never needs
            import torch

            from rarevox.pipeline.inference.calls.station import Station
        if self.threads:
            torch.set_num_threads(self.threads)
        segmenter = self.networks.segmenter()
        return Station(segmenter, outputs_of(self.asked, segmenter.config), Path(self.folder), self.made)
