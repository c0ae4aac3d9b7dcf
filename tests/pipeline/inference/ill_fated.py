"""Predictions whose workers end at scans called so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.inference.calls.prediction import Prediction
from rarevox.pipeline.inference.calls.station import Station


@dataclass(frozen=True)
class IllFated(Prediction):
    """``crash``: reading it is a segmentation fault; ``hang``: it is never read; ``once``: killed at first; ``gone``:
    killed when somebody has moved the run's folder away."""

    def open(self) -> Station:
        station = super().open()
        read = station.segmenter.read

        def reading(item: Mapping[str, Any]) -> dict[str, Any]:
            case, mark = str(item["case"]), Path(self.folder) / f".{item['case']}"
            if case.startswith("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if case.startswith("hang"):
                time.sleep(1000)
            if case.startswith("gone") and Path(self.networks.runs[0]).is_dir():
                Path(self.networks.runs[0]).rename(f"{self.networks.runs[0]}.away")
                os.kill(os.getpid(), signal.SIGKILL)
            if case.startswith("once") and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return read(item)

        station.segmenter.read = reading  # type: ignore[method-assign]
        return station
