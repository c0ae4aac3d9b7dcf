from __future__ import annotations

import itertools
import types

import pytest
import torch
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd, RandGaussianNoised

from rarevox.pipeline.storage.cases import on_device
from rarevox.pipeline.training.draws import loader as loader_module
from rarevox.pipeline.training.draws.loader import MEASURED, WARMING, DrawSampler, PatchLoader, patch_loader
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.pipeline.training.draws.workers import end_workers
from rarevox.transforms import BackgroundMixSampler, IndexForegroundd, RandForegroundPatchd
from rarevox.transforms.sampling.patches import crop_padded


def dataset(cases: int = 5, seed: int = 0) -> PatchDataset:
    index = IndexForegroundd("label")
    data = []
    for number in range(cases):
        label = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
        label[0, number, 2, 3] = 1
        data.append(index({"image": torch.full((1, 8, 8, 8), float(number)), "label": label, "case": str(number)}))
    patch = RandForegroundPatchd(["image", "label"], (4, 4, 4))
    steps = [RandFlipd(["image", "label"], prob=0.5, spatial_axis=0), RandGaussianNoised("image", prob=0.5, std=0.1)]
    return PatchDataset(data, Compose(steps), patch=patch, seed=seed)


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


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((4, 4), "no training case has a patch of 4×4×4 voxels without foreground, so that all patches hold some"),
        (
            (4, 12),
            "1 training case of 2 has no patch of 4×4×4 voxels without foreground, and its patches",
        ),
        ((12, 12), ""),
    ],
)
def test_it_is_told_where_no_patch_is_without_foreground(sizes, said, capsys) -> None:
    """A share of them is asked for, and the patch is as large as the volume, with foreground in its middle."""
    sampler = BackgroundMixSampler(share=0.5)
    cases = []
    for size in sizes:
        label = torch.zeros(1, size, size, size, dtype=torch.uint8)
        label[0, 1, 1, 1] = 1
        index = IndexForegroundd("label", sampler=sampler, patch_size=(4, 4, 4))
        cases.append(index({"image": torch.zeros(1, size, size, size), "label": label}))
    patch = RandForegroundPatchd(["image", "label"], (4, 4, 4), sampler=sampler)
    patch_loader(PatchDataset(cases, patch=patch), 2)
    told = " ".join(capsys.readouterr().err.split())
    assert said in told if said else "background_share" not in told


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_takes_nothing_from_the_global_generator(workers) -> None:
    """Dropout's numbers come from there: a run that was resumed opens one loader more than one that was not."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for _ in range(2):
        next(iter(patch_loader(dataset(), 2, workers=workers)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("seconds", "workers"), [(0.0002, 0), (0.002, 1), (0.02, 2)])
def test_slow_draws_are_given_to_processes_after_some_steps(monkeypatch, seconds, workers) -> None:
    """As on CUDA, with steps of 5 ms: 1.25 · 2 / 5 and 1.25 · 20 / 5 processes, of the two beside the trainer."""
    now = [0.0]

    def pass_(seconds: float) -> None:
        now[0] += seconds

    draws = dataset()
    fast = draws.__getitems__
    monkeypatch.setattr(draws, "__getitems__", lambda numbers: pass_(seconds) or fast(numbers))
    monkeypatch.setattr(loader_module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(loader_module.os, "sched_getaffinity", lambda _: {0, 1, 2})
    loader = PatchLoader(draws, 3, DrawSampler(4), None, pin=False)
    plain = PatchLoader(dataset(), 3, DrawSampler(4), 0, pin=False)
    for a, b in itertools.islice(zip(loader, plain, strict=False), WARMING + MEASURED + 4):
        assert same(a, b)
        pass_(0.005)
    assert loader.num_workers == workers
    end_workers(loader)


def test_on_a_cpu_auto_draws_in_the_training_process() -> None:
    loader = patch_loader(dataset(), 3, workers="auto")
    assert loader.num_workers == 0 and not loader.measures


@pytest.mark.gpu
def test_cases_on_the_device_give_the_batches_of_those_in_memory() -> None:
    memory, device = dataset(), dataset()
    memory.transform = device.transform = None
    device.data = on_device(device.data, torch.device("cuda"))
    loader = patch_loader(device, 3, workers=2, device="cuda")
    assert loader.num_workers == 0
    batch, expected = next(iter(loader)), memory.__getitems__([0, 1, 2])
    assert batch["image"].device.type == batch["label"].device.type == "cuda"
    assert same({key: value.cpu() for key, value in batch.items()}, expected)


@pytest.mark.gpu
def test_batches_for_a_device_are_pinned() -> None:
    for workers in (0, 1):
        batch = next(iter(patch_loader(dataset(), 2, workers=workers, device="cuda")))
        assert batch["image"].is_pinned()
        assert same(batch, dataset().__getitems__([0, 1]))


def test_batches_that_are_kept_stay_as_they_were() -> None:
    """More of them than there are buffers to write them in."""
    loader = patch_loader(dataset(), 2, workers=1)
    kept = list(itertools.islice(loader, 12))
    draws = dataset()
    for step, batch in enumerate(kept):
        assert same(batch, draws.__getitems__([2 * step, 2 * step + 1]))


def test_the_sampler_goes_on_where_a_run_stopped() -> None:
    sampler = DrawSampler()
    sampler.start = 42
    assert list(itertools.islice(sampler, 3)) == [42, 43, 44]


def test_a_batch_is_its_draws_whatever_is_drawn_with_them() -> None:
    draws = dataset()
    batch = draws.__getitems__([7, 3, 11])
    for row, number in enumerate((7, 3, 11)):
        assert same(draws[number], {key: value[row] for key, value in batch.items()})


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_draw_what_one_draws_with_the_batch_of_all(world_size: int) -> None:
    single = patch_loader(dataset(), 2 * world_size)
    ranks = [patch_loader(dataset(), 2, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, (whole, *parts) in enumerate(itertools.islice(zip(single, *ranks, strict=False), 4)):
        for rank, part in enumerate(parts):
            first = (rank + step) % world_size * 2
            assert same(part, {key: value[first : first + 2] for key, value in whole.items()})


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_every_process_sees_patches_with_and_without_foreground(world_size: int, batch_size: int) -> None:
    """Of every second draw a process would see one kind alone, and its batch norms the statistics of that kind."""
    mixed = BackgroundMixSampler(share=0.5)
    for rank in range(world_size):
        draws = DrawSampler(batch_size=batch_size, rank=rank, world_size=world_size)
        kinds = [mixed.wants_background(number) for number in itertools.islice(draws, 48)]
        for first in range(0, 48, 2):
            few = sum(kinds[first : first + 2])
            assert few == 1 or (batch_size == 1 and world_size % 2)
        assert sum(kinds) == 24


def test_a_resumed_rank_goes_on_with_its_own_draws() -> None:
    """Rank 1 of 2 has made 4 draws (2, 3, 4, 5); of the next step, 8 to 11, it has the last two."""
    loader = patch_loader(dataset(), 2, rank=1, world_size=2)
    loader.sampler.start = 4
    expected = dataset().__getitems__([10, 11])
    assert same(next(iter(loader)), expected)
    with pytest.raises(ValueError, match="rank is 2 of 2 processes; expected 0 to 1"):
        DrawSampler(rank=2, world_size=2)


def test_the_patch_is_the_block_at_its_start_and_cases_may_be_cut_by_a_transform() -> None:
    """Without augmentation, a batch holds the volume's voxels, zeros outside; half precision comes as float32."""
    draws = dataset()
    plain = PatchDataset(draws.data, patch=draws.patch)
    batch = plain.__getitems__(list(range(8)))
    columns = (batch[key] for key in ("case_number", "patch_start", "image", "label"))
    for case, start, image, label in zip(*columns, strict=True):
        volume = draws.data[int(case)]
        assert torch.equal(image, crop_padded(volume["image"], start.tolist(), (4, 4, 4)))
        assert torch.equal(label, crop_padded(volume["label"], start.tolist(), (4, 4, 4)))
        assert bool(label.any())
    whole = PatchDataset(draws.data, RandForegroundPatchd(["image", "label"], (4, 4, 4)))
    assert whole.__getitems__([0, 1])["image"].shape == (2, 1, 4, 4, 4)
    monai = RandCropByPosNegLabeld(["image", "label"], "label", (4, 4, 4), pos=1, neg=0)
    assert PatchDataset(draws.data, monai).__getitems__([0, 1, 2])["label"].flatten(1).any(1).tolist() == [True] * 3
    # A case's mask, which the transform does not cut, is left out of the batch: those of two sizes cannot be stacked.
    masked = [{**one, "mask": torch.ones(1, 9 + n, 9, 9)} for n, one in enumerate(draws.data)]
    assert "mask" not in PatchDataset(masked, monai).__getitems__([0, 1, 2])
    monai.cropper.num_samples = 2
    with pytest.raises(ValueError, match="gave 2 patches of a case"):
        PatchDataset(draws.data, monai)[0]
    half = [{**case, "image": case["image"].half()} for case in draws.data]
    assert same(PatchDataset(half, patch=draws.patch)[5], plain[5])


def test_batches_hold_plain_tensors() -> None:
    batch = next(iter(patch_loader(dataset(), 2)))
    assert {type(value) for value in batch.values()} == {torch.Tensor}
    assert set(batch) == {"image", "label", "case_number", "draw_number", "patch_start", "volume_size"}
