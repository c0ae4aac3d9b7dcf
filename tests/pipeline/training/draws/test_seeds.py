from __future__ import annotations

import itertools
import random

import numpy as np
import torch

from rarevox.pipeline.training.draws.loader import patch_loader
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.pipeline.training.draws.seeds import seeded


def numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_inside_the_seed_rules_and_outside_nothing_moves() -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = [numbers() for _ in range(3)]
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    found = []
    for _ in range(3):
        found.append(numbers())
        with seeded(7):
            inside = numbers()
    assert found == expected
    with seeded(7):
        assert numbers() == inside
    with seeded(8):
        assert not set(numbers()) & set(inside)


def global_noise(item: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a transform of another library does: it takes the global generators."""
    return {"noise": torch.tensor([*numbers(), *numbers()], dtype=torch.float64)}


def test_workers_have_no_random_state_of_their_own() -> None:
    """No worker, one and two give the same batches, also when the run begins in its middle."""
    found = []
    for workers, start in ((0, 0), (1, 0), (2, 0), (2, 4)):
        loader = patch_loader(PatchDataset([{}, {}, {}], global_noise, seed=5), 2, workers=workers)
        loader.sampler.start = start
        found.append([batch["noise"] for batch in itertools.islice(loader, 6 - start // 2)])
    plain = torch.stack(found[0])
    assert plain.unique().numel() == plain.numel()
    assert all(torch.equal(torch.stack(batches), plain) for batches in found[1:3])
    assert torch.equal(torch.stack(found[3]), plain[2:])
