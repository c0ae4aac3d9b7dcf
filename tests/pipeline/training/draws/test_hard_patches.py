from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.pipeline.training.draws.hard_patches import HardPatches, false_positives
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.transforms import BackgroundMixSampler, IndexForegroundd, RandForegroundPatchd


def draws(share: float = 0.5) -> PatchDataset:
    """Two cases of 12³ of which every voxel tells its place, a voxel of foreground each."""
    cases = []
    for number in range(2):
        image = torch.arange(12**3, dtype=torch.float32).reshape(1, 12, 12, 12) + 10_000 * number
        label = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
        label[0, 6, 6, 6] = 1
        cases.append({"image": image, "label": label})
    sampler = BackgroundMixSampler(share=share)
    index = IndexForegroundd(sampler=sampler, patch_size=(4, 4, 4))
    patch = RandForegroundPatchd(["image", "label"], (4, 4, 4), sampler=sampler)
    return PatchDataset([index(case) for case in cases], patch=patch, seed=3)


def marks(voxels: list[int]) -> torch.Tensor:
    """Logits (B, 2, 4, 4, 4) that call so many voxels of each patch foreground."""
    called = torch.stack([torch.arange(64).reshape(4, 4, 4) < count for count in voxels])
    return torch.stack([torch.zeros_like(called, dtype=torch.float32), called * 2.0 - 1.0], 1)


def step(hard: HardPatches, numbers: list[int], voxels: list[int]) -> dict[str, torch.Tensor]:
    """One step: the batch of these draws after replacement; the network marks so many voxels in each patch."""
    batch = hard.dataset.batch(numbers)
    hard.replace(batch)
    hard.look_at(marks(voxels), batch["label"])
    return batch


def test_false_positives_by_hand_and_against_probabilities() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 5, 5, generator=random) * 2
    labels = torch.zeros(3, 2, 5, 5, 5, dtype=torch.uint8)
    labels[0, 0, 1, 1, 1] = 2
    labels[1, 0, :2] = 255
    softmax = logits.double().softmax(1)[:, 1:].sum(1) > 0.5
    sigmoid = (logits.double().sigmoid()[:, 1:] > 0.5).any(1)
    for found, called in (
        (false_positives(logits, labels), softmax),
        (false_positives(logits, labels, sigmoid=True), sigmoid),
    ):
        assert found.tolist() == [-1, int(called[1, 2:].sum()), int(called[2].sum())]


def test_what_the_outermost_of_nested_regions_marks_is_a_false_positive() -> None:
    """The second output alone marks nothing: no depth is without the first region."""
    logits = torch.full((1, 2, 2, 2, 2), -1.0)
    logits[0, 0, 0, 0, 0], logits[0, 1, 1] = 1.0, 1.0
    hard = HardPatches(draws(), share=1e-9, sigmoid=True, nested=True)
    hard.replace(hard.dataset.batch([1]))
    hard.look_at(logits, torch.zeros(1, 1, 2, 2, 2, dtype=torch.uint8))
    hard.replace(hard.dataset.batch([3]))
    assert hard.scores == {hard.dataset.place_of(1): 1}


def test_the_worst_patches_are_kept_and_learnt_ones_forgotten() -> None:
    """Odd draws are without foreground; what is marked beside real foreground does not count."""
    hard = HardPatches(draws(), share=1e-9, kept=2)
    for numbers, voxels in (([0, 1], [50, 7]), ([2, 3], [50, 0]), ([4, 5], [0, 9]), ([6, 7], [0, 3])):
        step(hard, numbers, voxels)
    hard.replace(hard.dataset.batch([8, 9]))  # what was counted last is read at the next step
    assert hard.scores == {hard.dataset.place_of(1): 7, hard.dataset.place_of(5): 9}
    hard.share = 1.0
    places = set()
    for number in range(11, 31, 2):
        batch = step(hard, [number], [0])
        assert batch["redrawn"].tolist() == [int(bool(hard.scores) or batch["redrawn"][0])]
        places.add(int(batch["patch_start"][0, 0]))
        if len(hard.scores) == 0:
            break
    hard.replace(hard.dataset.batch([100]))
    assert hard.scores == {}


def test_a_hard_patch_comes_in_the_place_of_one_without_foreground_alone() -> None:
    hard = HardPatches(draws(), share=1.0)
    step(hard, [0, 1], [0, 5])
    before = hard.dataset.batch([2, 3])
    after = hard.dataset.batch([2, 3])
    hard.replace(after)
    assert after["redrawn"].tolist() == [0, 1]
    first = hard.dataset.batch([1])
    for key in ("image", "label", "case_number", "patch_start", "volume_size"):
        assert torch.equal(after[key][0], before[key][0]), key
        assert torch.equal(after[key][1], first[key][0]), key
    assert after["draw_number"].tolist() == [2, 3]


def test_the_share_is_kept() -> None:
    """Of 300 draws with p = 0.4 a count lies within five standard deviations, 5·√(300·0.4·0.6) = 43, of 120."""
    hard = HardPatches(draws(share=1.0), share=0.4)
    step(hard, [0], [5])
    redrawn = sum(int(step(hard, [number], [5])["redrawn"][0]) for number in range(1, 301))
    assert abs(redrawn - 120) < 43


def test_a_resumed_run_mines_as_one_in_a_row() -> None:
    def batches(hard: HardPatches, first: int, last: int) -> list[dict[str, torch.Tensor]]:
        return [step(hard, [n, n + 1], [0, (7 * n) % 5]) for n in range(first, last, 2)]

    whole = batches(HardPatches(draws(), share=0.7), 0, 40)
    start = HardPatches(draws(), share=0.7)
    batches(start, 0, 20)
    resumed = HardPatches(draws(), share=0.7)
    resumed.load_state_dict(start.state_dict())
    for one, other in zip(whole[10:], batches(resumed, 20, 40), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert sum(int(batch["redrawn"].sum()) for batch in whole[10:]) > 0


def test_another_augmentation_at_the_same_place() -> None:
    data = draws()

    class Noise:
        def __call__(self, row: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {**row, "image": row["image"] + float(np.random.rand())}

    data.transform = Noise()
    first, again = data.batch([1]), data.batch([5], places=[data.place_of(1)])
    assert torch.equal(first["patch_start"], again["patch_start"]) and torch.equal(first["label"], again["label"])
    difference = again["image"] - first["image"]
    assert difference.std() < 1e-3 < difference.abs().min()


def test_without_a_share_nothing_is_followed() -> None:
    from ignite.engine import Engine

    engine = Engine(lambda *_: None)
    HardPatches(draws()).attach(engine)
    assert not any(engine._event_handlers.values())
    with pytest.raises(ValueError, match="share"):
        HardPatches(draws(), share=1.5)
    with pytest.raises(ValueError, match="background_share"):
        HardPatches(draws(share=0.0), share=0.5)
