"""Which networks are loaded and how, in plain values that go to other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rarevox.pipeline.inference.segment import Segmenter


@dataclass(frozen=True)
class Networks:
    """The networks of a run, or of an ensemble.

    Attributes:
        runs: their folders; several are an ensemble.
        device: auto, cpu, cuda or cuda:i.
        settings: over the runs' configurations.
        trust: take the runs' configurations whatever they build.
    """

    runs: tuple[str, ...]
    device: str = "auto"
    settings: tuple[str, ...] = ()
    trust: bool = False

    @property
    def folders(self) -> list[Path]:
        """Of the runs."""
        return [Path(run) for run in self.runs]

    def segmenter(self) -> Segmenter:
        """Load them.

        Raises:
            RequestError: see :class:`rarevox.pipeline.inference.segment.Segmenter`.
        """
        from rarevox.pipeline.inference.ensemble import segmenter_of  # PyTorch and MONAI

        first, *others = self.runs
        return segmenter_of(first, others, device=self.device, settings=self.settings, trust=self.trust)
