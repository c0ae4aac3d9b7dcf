"""Training patches as a pure function of (seed, number of the draw).

Draw number i takes its case and every random choice of its transforms from the pair (seed, i) alone. So the order of
patches does not depend on the number of worker processes, and a resumed run goes on with exactly the patches that the
uninterrupted one would have seen: the sampler's position is the iteration number.

A patch is copied once: from the case's volume, in memory, memory-mapped or on the device, to its place in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset, default_collate

from rarevox.pipeline.training.draws.seeds import seeded
from rarevox.pipeline.training.draws.shared_batches import Allocate, allocate
from rarevox.transforms.sampling.background import BackgroundMixSampler
from rarevox.transforms.sampling.patches import RandForegroundPatchd, crop_into

Batch = dict[str, torch.Tensor]
BatchTransform = Callable[[Batch, list[np.random.Generator]], Batch]
"""Changes a batch in one go; gets a generator for each patch, so that a draw does not depend on its batch."""
Planting = Callable[[Batch, list[np.random.Generator], list[str]], Batch]
"""Likewise, and is told what each patch was drawn for."""
Place = tuple[int, tuple[int, ...]]
"""Where a patch lies: the position of its case, and its start."""

APART = ("patch_start", "volume_size", "planted", "planted_lesions")
"""Entries of a batch that are told of patches, and that no random transform sees."""
MASK = "mask"
"""The anatomy of a case, which planting keeps to."""


class PatchDataset(Dataset[Batch]):
    """Item i is the i-th draw of a run: a random case, a patch of it, then the random transforms on it.

    Cases come in shuffled rounds: each round visits every case once before any comes again.

    Args:
        data: indexed, deterministic cases (a sequence of dictionaries), whose volumes are tensors.
        transform: random transforms of one patch, seeded afresh for every draw; None leaves patches as they are.
        patch: cuts the patch; its keys are what a batch holds. None leaves the cutting to ``transform``.
        planting: plants lesions into patches as they are cut (:class:`rarevox.transforms.BatchPlantLesions`), batch by
            batch, where the volumes are; masks of the cases are cut for it too, and go no further.
        batch_transform: what is done to whole batches, where the volumes are (on the device where they are held there).
        seed: the run's seed.

    Raises:
        ValueError: there are no cases.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Callable[[Any], Any] | None = None,
        *,
        patch: RandForegroundPatchd | None = None,
        planting: Planting | None = None,
        batch_transform: BatchTransform | None = None,
        seed: int = 0,
    ) -> None:
        if len(data) == 0:
            raise ValueError("there are no training cases; check the fold and the dataset's sections")
        self.data = data
        self.transform = _needed(transform)
        self.patch = patch
        self.planting = planting
        self.keys = () if patch is None else tuple(map(str, patch.keys))
        if planting is not None and MASK in data[0] and MASK not in self.keys:
            self.keys += (MASK,)
        self.batch_transform = batch_transform
        self.seed = seed
        self._random = np.random.RandomState(0)
        self._round: tuple[int, list[int]] = (-1, [])

    def case_of(self, draw: int) -> int:
        """The position in ``data`` of the case of draw number ``draw``."""
        turn, place = divmod(draw, len(self.data))
        if self._round[0] != turn:
            order = np.random.default_rng((self.seed, 1, turn)).permutation(len(self.data))
            self._round = (turn, order.tolist())
        return self._round[1][place]

    def __getitem__(self, draw: int) -> Batch:
        """The tensors of draw number ``draw``, that number as ``draw_number``, and the position of its case in ``data``
        as ``case_number``."""
        return {key: value[0] for key, value in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[int]) -> Batch:
        """The batch of these draws."""
        return self.batch(draws)

    @property
    def on_device(self) -> bool:
        """Whether the volumes are held on a device, where worker processes cannot cut them."""
        return self.patch is not None and self.data[0][self.patch.keys[0]].device.type != "cpu"

    def batch_bytes(self, size: int) -> int:
        """What the volumes' patches of a batch of ``size`` take, and a little more; 0 where a transform cuts them."""
        if self.patch is None:
            return 0
        kinds = [(self.data[0][key].shape[0], _batch_type(self.data[0][key])) for key in self.keys]
        voxels = math.prod(self.patch.frame.size)
        return sum(size * channels * voxels * kind.itemsize for channels, kind in kinds) + 256 * (size + 16)

    def batch(
        self, draws: Sequence[int], allocate: Allocate = allocate, *, places: Sequence[Place] | None = None
    ) -> Batch:
        """The batch of these draws, in memory from ``allocate``.

        With ``places``, which need a ``patch``, the patches are cut there instead, and transformed as these draws.
        """
        if self.patch is None:
            cases = list(map(self.case_of, draws))
            seeds = [self._seeds(draw)[0] for draw in draws]
            # Its mask is whole where the transform cuts image and label alone: of two sizes no batch could be made.
            whole = [{key: value for key, value in self.data[case].items() if key != MASK} for case in cases]
            batch = collate(list(map(self._transformed, whole, seeds)))
        else:
            kinds = ["hard"] * len(draws) if places is not None else list(map(self.drawn_for, draws))
            places = list(map(self.place_of, draws)) if places is None else places
            cases = [case for case, _ in places]
            batch = self.patches(places, allocate)
            if self.planting is not None:
                batch = self.planting(batch, self._generators(draws, 5), kinds)
            if self.transform is not None:
                apart = {key: batch.pop(key) for key in APART if key in batch}
                rows: list[dict[str, Any]] = [
                    {key: block[row] for key, block in batch.items()} | {"drawn_for": kind}
                    for row, kind in enumerate(kinds)
                ]
                seeds = [self._seeds(draw)[1] for draw in draws]
                batch = collate(list(map(self._transformed, rows, seeds))) | apart
        if self.batch_transform is not None:
            batch = self.batch_transform(batch, self._generators(draws, 3))
        return {**batch, "case_number": torch.tensor(cases), "draw_number": torch.tensor(list(draws))}

    def place_of(self, draw: int) -> Place:
        """Where draw number ``draw`` cuts its patch."""
        assert self.patch is not None
        case = self.case_of(draw)
        self._random.seed(self._seeds(draw)[0])  # 6 µs; a new generator takes 115
        return case, self.patch.place(self.data[case][self.patch.index_key], self._random, draw)

    def patches(self, places: Sequence[Place], allocate: Allocate = allocate) -> Batch:
        """The patches at these places as they are cut, before any random transform."""
        assert self.patch is not None
        cases = [self.data[case] for case, _ in places]
        starts = [start for _, start in places]
        batch = {key: self._blocks(key, cases, starts, allocate) for key in self.keys}
        sizes = [case[self.patch.index_key].shape for case in cases]
        return {**batch, "patch_start": torch.tensor(starts), "volume_size": torch.tensor(sizes)}

    def drawn_for(self, draw: int) -> str:
        """``foreground``: what the sampler draws; ``background``: a patch without foreground, whose turn it is
        (:class:`rarevox.transforms.BackgroundMixSampler`). A patch that is cut elsewhere is ``hard``."""
        sampler = None if self.patch is None else self.patch.sampler
        without = isinstance(sampler, BackgroundMixSampler) and sampler.wants_background(draw)
        return "background" if without else "foreground"

    def full_of_foreground(self) -> list[int]:
        """The cases of which patches without foreground are asked for, and that have none of this size: theirs are
        the other sampler's."""
        sampler = None if self.patch is None else self.patch.sampler
        if self.patch is None or not isinstance(sampler, BackgroundMixSampler) or sampler.share == 0:
            return []
        key = self.patch.index_key
        return [number for number in range(len(self.data)) if not len(self.data[number][key].background)]

    def _generators(self, draws: Sequence[int], purpose: int) -> list[np.random.Generator]:
        return [np.random.default_rng((self.seed, purpose, draw)) for draw in draws]

    def _seeds(self, draw: int) -> list[int]:
        """Two seeds of a draw: of its place, and of its transforms."""
        seeds: list[int] = np.random.SeedSequence((self.seed, 2, draw)).generate_state(2).tolist()
        return seeds

    def _blocks(self, key: str, cases: list[Any], starts: list[tuple[int, ...]], allocate: Allocate) -> torch.Tensor:
        """One patch from each case's volume, float16 as float32."""
        assert self.patch is not None
        volumes = [plain(case[key]) for case in cases]
        first = volumes[0]
        shape = (len(cases), first.shape[0], *self.patch.frame.size)
        out = allocate(shape, _batch_type(first), first.device)
        for block, volume, start in zip(out, volumes, starts, strict=True):
            crop_into(block, volume, start)
        return out

    def _transformed(self, data: Any, seed: int) -> dict[str, Any]:
        """One item after the random transforms, the tensors of it."""
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=seed)
        with seeded(seed):
            changed = data if self.transform is None else self.transform(data)
        if isinstance(changed, list):  # MONAI's cropping transforms give a list, of num_samples patches
            if len(changed) != 1:
                raise ValueError(f"a transform gave {len(changed)} patches of a case; expected 1 (num_samples: 1)")
            changed = changed[0]
        return {key: value for key, value in changed.items() if isinstance(value, torch.Tensor)}


def _needed(transform: Any) -> Any:
    """What is left of a transform without parts that never do anything; None for nothing."""
    if getattr(transform, "prob", None) == 0:
        return None
    parts = getattr(transform, "transforms", None)
    if parts is None:
        return transform
    needed = [part for part in map(_needed, parts) if part is not None]
    if len(needed) > 1:
        return transform
    # One alone is seeded as itself: what it draws does not depend on how it was put together.
    return needed[0] if needed and hasattr(needed[0], "transforms") else (transform if needed else None)


def _batch_type(volume: torch.Tensor) -> torch.dtype:
    """The type in which patches of a volume come: its own, and float32 for half precision."""
    return torch.float32 if volume.dtype == torch.float16 else volume.dtype


def plain(value: object) -> Any:
    """A tensor without MetaTensor bookkeeping."""
    return value.as_tensor() if hasattr(value, "as_tensor") else value


def collate(items: Any) -> Any:
    """Stack plain tensors; MetaTensor bookkeeping, which costs more than the copy, is dropped. A batch stays itself."""
    if not isinstance(items, list):
        return items
    return default_collate([{key: plain(value) for key, value in item.items()} for item in items])
