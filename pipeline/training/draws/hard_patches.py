"""Patches without foreground in which the network marked some, drawn once more: mining of false positives.

What is kept of a hard patch is its place, a case and a start, and a score. It is cut again, with another augmentation,
in the training process: loader processes need not be told, and cases on a device are cut there. A resumed run goes on
with the same patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from rarevox.pipeline.training import processes
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset, Place
from rarevox.transforms.labels import is_ignored
from rarevox.transforms.sampling.background import BackgroundMixSampler


class HardPatches:
    """Put hard patches in the place of a share of those that are drawn without foreground.

    After each step, the voxels that the network called foreground (p > ½) are counted in the patches whose labels
    hold none, in the region that the loss sees. The patches with the most are kept, ``kept`` of them; one that has
    none any more is forgotten. A draw whose turn it is to be without foreground takes, with probability ``share``,
    the place of one of them, each alike, with its own augmentation. It costs the cut of a patch, and a pass over the
    logits a step. What is found elsewhere (:class:`rarevox.pipeline.training.draws.scan_mining.ScanMining`) joins them
    by :meth:`add`.

    Args:
        dataset: the run's draws, whose sampler is a :class:`rarevox.transforms.BackgroundMixSampler`.
        share: of the patches drawn without foreground; 0 is none.
        kept: how many hard patches are remembered.
        sigmoid: whether the loss takes each class by itself; else the classes exclude one another.
        nested: whether the logits are those of nested regions, of which the first holds all foreground.

    Raises:
        ValueError: ``share`` is no share, or is above 0 where no patches are drawn without foreground.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        *,
        share: float = 0.0,
        kept: int = 64,
        sigmoid: bool = False,
        nested: bool = False,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; expected 0 to 1, the share of patches without foreground")
        sampler = None if dataset.patch is None else dataset.patch.sampler
        self.sampler = sampler if isinstance(sampler, BackgroundMixSampler) and sampler.share > 0 else None
        if share > 0 and self.sampler is None:
            raise ValueError(
                f"share is {share}, but no patches are drawn without foreground, of which hard ones could be a share: "
                "set background_share too"
            )
        self.dataset = dataset
        self.share = share
        self.kept = kept
        self.sigmoid, self.nested = sigmoid, nested
        self.scores: dict[Place, int] = {}
        self._places: list[Place] = []
        self._unread: tuple[list[Place], torch.Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer, before what counts its patches."""
        if self.share > 0:
            engine.add_event_handler(Events.ITERATION_STARTED, self._started)
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._forward)

    def _started(self, engine: Engine) -> None:
        batch: dict[str, torch.Tensor] = engine.state.batch  # type: ignore[assignment]
        self.replace(batch)

    def _forward(self, engine: Engine) -> None:
        output: dict[str, torch.Tensor] = engine.state.output  # type: ignore[assignment]
        self.look_at(output[Keys.PRED], output[Keys.LABEL])

    def replace(self, batch: dict[str, torch.Tensor]) -> None:
        """Put hard patches into a batch; adds ``redrawn`` (B,), 1 for each of them."""
        self._read()
        draws = batch["draw_number"].tolist()
        starts = map(tuple, batch["patch_start"].tolist())
        self._places = list(zip(batch["case_number"].tolist(), starts, strict=True))
        hard = sorted(self.scores)
        batch["redrawn"] = torch.zeros(len(draws), dtype=torch.int64)
        for row, draw in enumerate(draws):
            random = np.random.default_rng((self.dataset.seed, 4, draw))
            if self.sampler is None or not hard or not self.sampler.wants_background(draw):
                continue
            if random.random() >= self.share:
                continue
            place = hard[int(random.integers(len(hard)))]
            for key, value in self.dataset.batch([draw], places=[place]).items():
                batch[key][row].copy_(value[0])
            self._places[row] = place
            batch["redrawn"][row] = 1

    def look_at(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count false positives in the patches of the batch at hand; read at the next step, so that no device is waited
        for."""
        logits = logits.detach()[:, :1] if self.nested else logits.detach()
        self._unread = self._places, false_positives(logits, labels, sigmoid=self.sigmoid)

    def _read(self) -> None:
        if self._unread is None:
            return
        (places, counts), self._unread = self._unread, None
        for place, count in zip(places, counts.tolist(), strict=True):
            if count > 0:
                self.scores[place] = count
            else:
                self.scores.pop(place, None)
        self._forget()

    def add(self, found: Mapping[Place, int]) -> None:
        """Take in places, none of which holds foreground, with the voxels that were marked there."""
        self._read()
        self.scores.update(found)
        self._forget()

    def _forget(self) -> None:
        """All but the worst."""
        worst = sorted(self.scores, key=lambda place: (-self.scores[place], place))
        for place in worst[self.kept :]:
            del self.scores[place]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, of all processes: each mines its own draws."""
        self._read()
        own = [[self._name(case), list(start), count] for (case, start), count in sorted(self.scores.items())]
        return {"scores": processes.gather(own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was; cases that cannot be read any more are forgotten. Earlier runs kept the
        numbers of draws in place of cases and starts."""
        every = state["scores"]
        own = every[processes.rank() % len(every)]
        self._unread = None
        self.scores = {}
        case_of = {self._name(case): case for case in range(len(self.dataset.data))} if own else {}
        for *at, count in own:
            if len(at) == 1:
                self.scores[self.dataset.place_of(int(at[0]))] = int(count)
            elif at[0] in case_of:
                self.scores[case_of[at[0]], tuple(map(int, at[1]))] = int(count)

    def _name(self, case: int) -> str | int:
        """What a case is called, since its position changes where another is left out."""
        name: str | int = self.dataset.data[case].get("case", case)
        return name


def false_positives(logits: torch.Tensor, labels: torch.Tensor, *, sigmoid: bool = False) -> torch.Tensor:
    """Voxels called foreground in each patch (B,), int64; −1 for patches whose labels hold foreground.

    Args:
        logits: (B, C, *spatial), C ≥ 2 with softmax.
        labels: (B, 1 or more, *spatial), class indices in the first channel; voxels that nobody annotated do not count.

    >>> logits = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 3.0, 3.0]]])
    >>> false_positives(logits, torch.zeros(1, 1, 3, dtype=torch.uint8)).tolist()
    [2]
    >>> false_positives(logits, torch.tensor([[[0, 0, 1]]], dtype=torch.uint8)).tolist()
    [-1]
    """
    classes = labels[:, 0]
    ignored = is_ignored(classes)
    holds = ((classes != 0) & ~ignored).flatten(1).any(1)
    # p > ½ without a softmax: with two classes, and for each class by itself, a comparison of logits.
    if sigmoid:
        called = (logits[:, min(1, logits.shape[1] - 1) :] > 0).any(1)
    else:
        called = logits[:, 1:].logsumexp(1) > logits[:, 0]
    counts = (called & ~ignored).flatten(1).sum(1)
    return torch.where(holds, torch.full_like(counts, -1), counts)
