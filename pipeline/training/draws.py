"""Training patches as a pure function of (seed, number of the draw).

Draw number i takes its case and every random choice of its transforms from the pair (seed, i) alone. So the order of
patches does not depend on the number of worker processes, and a resumed run goes on with exactly the patches that the
uninterrupted one would have seen: the sampler's position is the iteration number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Item i is the i-th draw of a run: a random case, then the random transforms on it.

    Cases come in shuffled rounds: each round visits every case once before any comes again.

    Args:
        data: cached, deterministic cases (a sequence of dictionaries).
        transform: random transforms, seeded afresh for every draw.
        seed: the run's seed.

    Raises:
        ValueError: there are no cases.
    """

    def __init__(self, data: Sequence[Any], transform: Callable[[Any], Any], *, seed: int = 0) -> None:
        if len(data) == 0:
            raise ValueError("there are no training cases; check the fold and the dataset's sections")
        self.data = data
        self.transform = transform
        self.seed = seed

    def case_of(self, draw: int) -> int:
        """The position in ``data`` of the case of draw number ``draw``."""
        turn, place = divmod(draw, len(self.data))
        return int(np.random.default_rng((self.seed, 1, turn)).permutation(len(self.data))[place])

    def __getitem__(self, draw: int) -> dict[str, torch.Tensor]:
        """The tensors of draw number ``draw``, and as ``case_number`` the position of its case in ``data``."""
        seed = int(np.random.SeedSequence((self.seed, 2, draw)).generate_state(1)[0])
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=seed)
        case = self.case_of(draw)
        drawn = self.transform(self.data[case])
        tensors = {key: value for key, value in drawn.items() if isinstance(value, torch.Tensor)}
        return {**tensors, "case_number": torch.tensor(case)}


class DrawSampler(Sampler[int]):
    """The numbers of the draws, from ``start`` on without end; a resumed run sets ``start`` to what it has drawn."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        """Count."""
        number = self.start
        while True:
            yield number
            number += 1


def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack plain tensors; MetaTensor bookkeeping, which costs more than the copy, is dropped."""
    plain = [{k: v.as_tensor() if hasattr(v, "as_tensor") else v for k, v in item.items()} for item in items]
    return default_collate(plain)


def patch_loader(
    dataset: PatchDataset, batch_size: int, *, workers: int = 0, device: torch.device | str = "cpu"
) -> DataLoader[dict[str, torch.Tensor]]:
    """The endless loader of a run.

    Args:
        dataset: the draws.
        batch_size: patches in a batch.
        workers: loader processes; 0 draws in the training process, which is right for cached cases on a CPU.
        device: pinned memory is used for CUDA.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=DrawSampler(),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.device(device).type == "cuda",
        persistent_workers=workers > 0,
    )
