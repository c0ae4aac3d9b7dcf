from __future__ import annotations

import itertools

import torch
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from pipeline.training.draws import DrawSampler, PatchDataset, patch_loader
from transforms import IndexForegroundd, RandForegroundPatchd


def dataset(cases: int = 5, seed: int = 0) -> PatchDataset:
    index = IndexForegroundd("label")
    data = []
    for number in range(cases):
        label = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
        label[0, number, 2, 3] = 1
        data.append(index({"image": torch.full((1, 8, 8, 8), float(number)), "label": label, "case": str(number)}))
    steps = [
        RandForegroundPatchd(["image", "label"], (4, 4, 4)),
        RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
        RandGaussianNoised("image", prob=0.5, std=0.1),
    ]
    return PatchDataset(data, Compose(steps), seed=seed)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_draw_depends_on_its_number_and_the_seed_alone() -> None:
    forward, backward = dataset(), dataset()
    ahead = {n: forward[n] for n in range(12)}
    assert all(same(ahead[n], backward[n]) for n in reversed(range(12)))
    assert not all(same(ahead[n], dataset(seed=1)[n]) for n in range(12))


def test_every_case_comes_once_a_round_in_changing_order() -> None:
    draws = dataset()
    rounds = [[draws.case_of(turn * 5 + place) for place in range(5)] for turn in range(6)]
    assert all(sorted(order) == list(range(5)) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_workers_do_not_change_the_batches() -> None:
    plain, parallel = (patch_loader(dataset(), 3, workers=workers) for workers in (0, 2))
    for a, b in itertools.islice(zip(plain, parallel, strict=False), 4):
        assert same(a, b)
        assert a["image"].shape == (3, 1, 4, 4, 4)


def test_the_sampler_goes_on_where_a_run_stopped() -> None:
    sampler = DrawSampler()
    sampler.start = 42
    assert list(itertools.islice(sampler, 3)) == [42, 43, 44]


def test_batches_hold_plain_tensors() -> None:
    batch = next(iter(patch_loader(dataset(), 2)))
    assert {type(value) for value in batch.values()} == {torch.Tensor}
    assert set(batch) == {"image", "label", "case_number", "patch_start", "volume_size"}
