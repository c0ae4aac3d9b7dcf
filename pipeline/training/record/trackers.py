"""Who else takes the numbers of a training: TensorBoard here, MLflow in `mlflow_tracker` beside it.

A tracker has ``open(iteration)`` (of the step that a resumed run goes on from), ``add(scalars, iteration)``,
``flush(everything)`` (True before a checkpoint: what is held then would be lost to a run that is killed) and
``close(status)`` with FINISHED, KILLED (interrupted) or FAILED.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoardTracker:
    """Event files for ``tensorboard --logdir RUN/logs/tensorboard``.

    A resumed run's file hides the steps after its checkpoint in the earlier ones.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: Any = None

    def open(self, iteration: int) -> None:
        """Start a file."""
        from torch.utils.tensorboard import SummaryWriter  # seconds to import, so only where it is used

        purge = iteration + 1 if iteration else None
        self._writer = SummaryWriter(str(self.folder), purge_step=purge)  # type: ignore[no-untyped-call]

    def add(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Numbers by name at a step."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def flush(self, everything: bool = False) -> None:
        """Write what is held."""
        self._writer.flush()

    def close(self, _: str) -> None:
        """End the file."""
        self._writer.close()
