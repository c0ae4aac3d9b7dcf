"""What training really drew: patches per structure, foreground share, coverage; ``logs/patches.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from rarevox.pipeline.files import write_json
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.draws.planted_counts import PLANTED, PlantedCounts

POINTS = 16
"""Coverage is looked at on so many points along each axis of a volume."""
DECADES, STEPS = 9, 100
"""Foreground shares from 1e-9 to 1 are counted in so many logarithmic steps a decade: quantiles to 1.2 %."""

UNREAD = 64
"""Batches on a device whose counts are read together."""

SUMS = ("holding", "voxels", "shares", "drawn", "redrawn", *PLANTED)
COUNTS = ("batches", *SUMS, "covered")


class PatchCounts:
    """Count the labels of every batch in the region that the loss sees, and write ``patches.json`` at the end.

    The file says, of all patches of the run (earlier parts of a resumed run included):

    - ``patches``, ``iterations``, ``effective_size``;
    - ``foreground_share``: mean over all voxels, and quantiles over patches, of foreground ÷ all voxels (voxels that
      nobody annotated are none of them);
    - ``imbalance``: background voxels for one foreground voxel in the median patch (the GDL paper's imbalance);
      null where the median patch holds no foreground;
    - ``without_foreground``, ``without_foreground_share``: patches that hold none;
    - ``redrawn``: patches without foreground that were drawn again because the network had marked some in them;
    - ``planted``: what was planted (before augmentation), where patches come with it:
      :meth:`rarevox.pipeline.training.draws.planted_counts.PlantedCounts.summary`;
    - ``structures``: by name, the patches that hold it and its voxels, as numbers and as shares of all;
    - ``coverage``: cases drawn, and the share of the training volume that some patch's effective region has covered,
      on a grid of 16 points an axis in each case, averaged over all training cases (cases not drawn yet count as 0).

    Labels are counted as they come from the loader, after augmentation, in the training process: any number of
    workers. It costs about 0.2 ms for a batch of 2×40³ and 4 KB of memory a case.

    Args:
        folder: the run's ``logs`` folder.
        structures: names of the classes 1, 2, ….
        margin: voxels from each face of the patch that the loss does not see, one an axis.
        cases: number of training cases.
        donors: the cases whose lesions are planted, each with its name under ``case``; without them they are numbered.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        structures: Sequence[str],
        margin: Sequence[int],
        cases: int,
        donors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.path = Path(folder) / "patches.json"
        self.structures = tuple(structures)
        self.margin = tuple(margin)
        self.batches = 0
        self.holding = torch.zeros(len(self.structures) + 1, dtype=torch.int64)  # at 0: patches without foreground
        self.voxels = torch.zeros(len(self.structures) + 1, dtype=torch.int64)
        self.shares = torch.zeros(DECADES * STEPS + 1, dtype=torch.int64)
        self.covered = torch.zeros((cases, *(POINTS,) * len(self.margin)), dtype=torch.bool)
        self.drawn = torch.zeros(cases, dtype=torch.int64)
        self.planted_counts = PlantedCounts(self.structures, cases, donors)
        self.redrawn = torch.zeros((), dtype=torch.int64)
        self.effective: tuple[int, ...] = ()
        self._unread: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def attach(self, engine: Engine) -> None:
        """Follow the trainer; a batch counts before its step, so that a checkpoint after the step holds it."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._count)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def _count(self, engine: Engine) -> None:
        batch: dict[str, torch.Tensor] = engine.state.batch  # type: ignore[assignment]
        self.count(batch)

    def count(self, batch: dict[str, torch.Tensor]) -> None:
        """Take in one batch: ``label`` (B, 1, *spatial), and for coverage ``case_number`` (B,), ``patch_start`` and
        ``volume_size`` (B, axes) where they are there."""
        labels = batch["label"].detach()
        inner = tuple(slice(m, n - m) for m, n in zip(self.margin, labels.shape[2:], strict=True))
        self.effective = tuple(n - 2 * m for m, n in zip(self.margin, labels.shape[2:], strict=True))
        self.batches += 1
        planted = batch.get("planted_lesions")
        if labels.is_cuda:
            # Counted there and read many steps at a time: to read them now, the host would wait for the device.
            patches = labels[:, 0][(slice(None), *inner)].flatten(1)
            counted = torch.stack([(patches == c).sum(1) for c in range(len(self.voxels))], 1)
            self._unread.append((counted, planted))
            if len(self._unread) >= UNREAD:
                self._read()
        else:
            self._take([class_counts(label[0][inner], len(self.voxels)) for label in labels.numpy()])
            if planted is not None:
                self.planted_counts.take(planted)
        if "redrawn" in batch:
            self.redrawn += batch["redrawn"].sum().cpu()
        if "case_number" in batch and "patch_start" in batch and "volume_size" in batch:
            rows = (batch[key].tolist() for key in ("case_number", "patch_start", "volume_size"))
            for case, start, size in zip(*rows, strict=True):
                self._cover(case, start, size)

    def _read(self) -> None:
        """Take in what was counted on the device."""
        if self._unread:
            counted, planted = zip(*self._unread, strict=True)
            self._unread = []
            self._take(list(torch.cat(counted).cpu().numpy()))
            lesions = [one for one in planted if one is not None]
            if lesions:
                self.planted_counts.take(torch.cat(lesions).cpu())

    def _take(self, patches: Sequence[np.ndarray]) -> None:
        """Take in the voxels of each class in some patches."""
        for counts in patches:
            self.voxels += torch.from_numpy(counts)
            self.holding[1:] += torch.from_numpy(counts[1:] > 0)
            foreground, annotated = int(counts[1:].sum()), int(counts.sum())
            self.holding[0] += foreground == 0
            self.shares[share_bin(foreground / max(annotated, 1))] += 1

    def _cover(self, case: int, start: Sequence[int], size: Sequence[int]) -> None:
        """Mark the points, at (i + ½)·n/16 on each axis, that the effective region holds."""
        self.drawn[case] += 1
        region: list[int | slice] = [case]
        for s, m, e, n in zip(start, self.margin, self.effective, size, strict=True):
            first, end = (math.ceil(edge * POINTS / n - 0.5) for edge in (s + m, s + m + e))
            region.append(slice(max(first, 0), max(end, 0)))
        self.covered[tuple(region)] = True

    def summary(self) -> dict[str, Any]:
        """The content of ``patches.json``."""
        self._read()
        patches, voxels = int(self.shares.sum()), int(self.voxels.sum())
        median = self._quantile(0.5)
        return {
            "iterations": self.batches,
            "patches": patches,
            "effective_size": list(self.effective),
            "foreground_share": {
                "mean": int(self.voxels[1:].sum()) / voxels if voxels else None,
                **{f"p{round(100 * q)}": self._quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
            },
            "imbalance": (1 - median) / median if median else None,
            "without_foreground": int(self.holding[0]),
            "without_foreground_share": int(self.holding[0]) / patches if patches else None,
            "redrawn": int(self.redrawn),
            "planted": self.planted_counts.summary(),
            "structures": {
                name: {
                    "patches": int(self.holding[number]),
                    "patch_share": int(self.holding[number]) / patches if patches else None,
                    "voxels": int(self.voxels[number]),
                    "voxel_share": int(self.voxels[number]) / voxels if voxels else None,
                }
                for number, name in enumerate(self.structures, start=1)
            },
            "coverage": {
                "cases": len(self.drawn),
                "cases_drawn": int((self.drawn > 0).sum()),
                "volume_share": float(self.covered.float().mean()) if bool(self.drawn.any()) else None,
            },
        }

    def _quantile(self, q: float) -> float | None:
        """The share below which ``q`` of the patches lie; the middle of its logarithmic step."""
        total = int(self.shares.sum())
        if not total:
            return None
        place = int(torch.searchsorted(self.shares.cumsum(0), max(math.ceil(q * total), 1)))
        return 0.0 if place == 0 else float(f"{min(10 ** ((place - 0.5) / STEPS - DECADES), 1.0):.3g}")

    def write(self, _: Engine | None = None) -> None:
        """Write the file, of all processes' patches; nothing is written before the first batch."""
        if not self.batches:
            return
        self._read()
        own, total = self._own(), self._total()
        if processes.is_first():
            self.load_state_dict(total)
            write_json(self.path, self.summary())
            self.load_state_dict(own)

    def _own(self) -> dict[str, Any]:
        """The counts of this process."""
        return {name: getattr(self.planted_counts if name in PLANTED else self, name) for name in COUNTS}

    def _total(self) -> dict[str, Any]:
        """The counts of all processes; the batches are the steps, which all have taken."""
        self._read()
        counts = processes.gather(self._own())
        total = {name: sum(each[name] for each in counts[1:]) + counts[0][name] for name in SUMS}
        covered = torch.stack([each["covered"] for each in counts]).any(0)
        return {"batches": self.batches, "effective": list(self.effective), **total, "covered": covered}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, of all processes."""
        return {
            name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in self._total().items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was; the first process carries what all had counted."""
        for name, value in state.items():
            if name == "effective":  # of a run resumed after its last step nothing else tells it
                self.effective = tuple(value)
            elif processes.is_first() or name == "batches":
                setattr(self.planted_counts if name in PLANTED else self, name, value)


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Voxels of each class 0 … classes − 1; those that nobody annotated count for none.

    >>> class_counts(np.array([[0, 2], [2, 255]], np.uint8), 4).tolist()
    [1, 0, 2, 0]
    """
    if classes > 16:
        return np.bincount(labels.ravel(), minlength=classes)[:classes]
    return np.array([np.count_nonzero(labels == c) for c in range(classes)])  # 5 to 28 times as fast as bincount


def share_bin(share: float) -> int:
    """The logarithmic step of a share; 0 is for no foreground at all.

    >>> share_bin(0.0), share_bin(1.0), share_bin(1e-9)
    (0, 900, 1)
    """
    return 0 if share <= 0 else min(max(math.ceil((math.log10(share) + DECADES) * STEPS), 1), DECADES * STEPS)
