"""What every step saw and how well its batch was segmented: the Dice that the GDL paper reports, ``iterations.npz``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from rarevox.pipeline.console import console
from rarevox.pipeline.files import atomic
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.steps.late import LateLoss
from rarevox.transforms.nested import depths

FILE = "iterations.npz"
UNREAD = 64
"""Steps on a device whose counts are read together, so that the host does not wait for it at every step."""


class BatchRecord:
    """Keep for every step the hard Dice of its batch, its loss and the foreground of its patches; off by default.

    ``iterations.npz`` in the run's folder holds, with N steps of B patches and C structures:

    - ``iteration`` (N,) from 1;
    - ``dice`` (N, C): of each structure 2·TP / (2·TP + FP + FN), counted over the whole batch where the loss sees it
      (the effective patch), of the logits that the step itself computed: no pass of its own. NaN where the structure is
      in neither map, and where the step was skipped;
    - ``loss`` (N,);
    - ``foreground_share`` (N, B): of each patch's effective voxels, the share that is foreground. Voxels that nobody
      annotated count for nothing.

    The counts are a few passes over the effective patch; a run that is resumed goes on with them. Of several
    processes, the first keeps its own patches.

    Args:
        folder: the run.
        structures: names of the classes 1, 2, ….
        ignore_index: voxels whose label is this count for nothing.
        keep: False keeps and writes nothing.
        regions: names of nested regions, the outermost first, which stand in place of the structures.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        structures: Sequence[str],
        ignore_index: int | None = None,
        keep: bool = False,
        regions: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> None:
        self.path = Path(folder) / FILE
        self.nested = bool(regions)
        self.structures = tuple(regions or structures)
        self.ignore_index = ignore_index
        self.keep = keep
        self.counts = torch.zeros((0, 0, 0), dtype=torch.int64)
        self.losses: list[float | LateLoss] = []
        self._unread: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        if self.keep and processes.is_first():
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._count)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_of_step)
            engine.add_event_handler(Events.COMPLETED, self.write)

    def _count(self, engine: Engine) -> None:
        output: dict[str, torch.Tensor] = engine.state.output  # type: ignore[assignment]
        self._unread.append(batch_counts(output[Keys.PRED], output[Keys.LABEL], self.ignore_index, nested=self.nested))
        if not self._unread[-1].is_cuda or len(self._unread) >= UNREAD:
            self._read()

    def _end_of_step(self, engine: Engine) -> None:
        output: dict[str, float | LateLoss] = engine.state.output  # type: ignore[assignment]
        self.losses.append(output[Keys.LOSS])

    def _read(self) -> None:
        if self._unread:
            unread, self._unread = torch.stack(self._unread).cpu(), []
            self.counts = torch.cat([self.counts, unread]) if self.counts.numel() else unread

    def _numbers(self) -> list[float]:
        """The losses, when all have come over from the device."""
        self.losses = [float(loss) for loss in self.losses]
        return self.losses  # type: ignore[return-value]

    def arrays(self) -> dict[str, np.ndarray]:
        """What the file holds."""
        self._read()
        losses = np.array(self._numbers(), float)
        return arrays_of(self.counts.numpy(), losses, len(self.structures), nested=self.nested)

    def write(self, _: Engine | None = None) -> None:
        """Write the file, whole; what cannot be written (disk full) is told and ends nothing."""
        try:
            with atomic(self.path) as temporary:
                np.savez(temporary, **self.arrays())  # type: ignore[arg-type]
        except OSError as error:
            console.say("[yellow]{} not written: {}[/]", self.path, error)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        self._read()
        return {"counts": self.counts, "losses": torch.tensor(self._numbers(), dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where the saved run was."""
        self.counts, self.losses, self._unread = state["counts"], state["losses"].tolist(), []


def batch_counts(
    logits: torch.Tensor, labels: torch.Tensor, ignore_index: int | None = None, *, nested: bool = False
) -> torch.Tensor:
    """(B, 1 + 3·(C − 1)) whole numbers for each patch: annotated voxels, then of each class from 1 on the voxels that
    are predicted, that are in the reference, and that are in both.

    Args:
        logits: (B, C, *spatial).
        labels: (B, 1, *spatial) class indices.
        ignore_index: as in :class:`BatchRecord`.
        nested: logits (B, K, *spatial) are those of nested regions, labels their depths; the counts are the regions'.

    >>> logits = torch.tensor([[[0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]]])
    >>> batch_counts(logits, torch.tensor([[[1, 0, 1, 9]]]), ignore_index=9).tolist()
    [[3, 2, 2, 1]]
    """
    predicted = (depths(logits.detach())[:, 0] if nested else logits.detach().argmax(1)).flatten(1)
    reference = labels.detach()[:, 0].flatten(1)
    size = reference.shape[1]
    columns = [torch.full((len(reference),), size, device=reference.device)]
    counted = None
    if ignore_index is not None:
        counted = reference != ignore_index
        columns = [counted.sum(1)]
    for number in range(1, logits.shape[1] + nested):
        if nested:
            found, wanted = predicted >= number, reference >= number
            wanted = wanted if counted is None else wanted & counted
        else:
            found, wanted = predicted == number, reference == number
        found = found if counted is None else found & counted
        columns += [found.sum(1), wanted.sum(1), (found & wanted).sum(1)]
    return torch.stack(columns, 1)


def arrays_of(
    counts: np.ndarray, losses: np.ndarray, structures: int, *, nested: bool = False
) -> dict[str, np.ndarray]:
    """The content of ``iterations.npz`` from the counts (N, B, 1 + 3·C) and the losses of N steps."""
    steps = min(len(counts), len(losses))
    counts, losses = counts[:steps], losses[:steps]
    if not steps:
        empty = np.zeros((0, structures))
        return {"iteration": np.zeros(0, int), "dice": empty, "loss": losses, "foreground_share": np.zeros((0, 0))}
    found, wanted, both = (counts[:, :, first::3].sum(1) for first in (1, 2, 3))
    total = found + wanted
    dice = np.where((total > 0) & np.isfinite(losses)[:, None], 2 * both / np.maximum(total, 1), np.nan)
    annotated = np.maximum(counts[:, :, 0], 1)
    # The first of nested regions holds all others.
    share = counts[:, :, 2::3][:, :, : 1 if nested else None].sum(2) / annotated
    return {"iteration": np.arange(1, steps + 1), "dice": dice, "loss": losses, "foreground_share": share}


def read_record(run: str | Path) -> dict[str, np.ndarray] | None:
    """The arrays of a run's ``iterations.npz``; None where there is none, or it cannot be read."""
    file = Path(run) / FILE
    try:
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in ("iteration", "dice", "loss", "foreground_share")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
