from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.pipeline.training.draws.hard_patches import HardPatches
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.pipeline.training.draws.scan_mining import ScanMining, false_lesions
from rarevox.transforms import BackgroundMixSampler, IndexForegroundd, RandForegroundPatchd

FALSE = ((2, 3, 4), (9, 9, 2), (10, 9, 2), (5, 6, 6))
"""Voxels marked beside the lesion at (6, 6, 6): a component of one, one of two, and one that touches the lesion."""


def dataset(margin: int = 0, size: int = 4) -> PatchDataset:
    """Two cases of 12³, a lesion of one voxel in each; the second has voxels that nobody annotated."""
    cases = []
    for number in range(2):
        label = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
        label[0, 6, 6, 6] = 1
        if number == 1:
            label[0, 2, 3, 4] = 255
        cases.append({"image": torch.full((1, 12, 12, 12), float(number)), "label": label})
    sampler = BackgroundMixSampler(share=0.5)
    shape = (size,) * 3
    index = IndexForegroundd(sampler=sampler, patch_size=shape, margin=margin)
    patch = RandForegroundPatchd(["image", "label"], shape, margin, sampler=sampler)
    return PatchDataset([index(case) for case in cases], patch=patch, seed=3)


class Marks:
    """An inferer that marks `FALSE` and the lesion, as class indices or scores, and looks at how it is called."""

    def __init__(self, *, scores: bool = False) -> None:
        self.scores, self.seen = scores, []

    def __call__(self, image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        assert image.shape == (1, 1, 12, 12, 12) and not network.training and not torch.is_grad_enabled()
        self.seen.append(int(image[0, 0, 0, 0, 0]))
        marked = torch.zeros(1, 1, 12, 12, 12, dtype=torch.int64)
        for voxel in (*FALSE, (6, 6, 6)):
            marked[(0, 0, *voxel)] = 1
        return torch.cat([1.0 - marked, marked.float()], 1) if self.scores else marked


def mining(data: PatchDataset, inferer: Any = None, *, scans: int = 1, **options: Any) -> ScanMining:
    network = torch.nn.Conv3d(1, 2, 1).train()
    return ScanMining(HardPatches(data, share=0.5), scans=scans, inferer=inferer or Marks(), network=network, **options)


def mine(one: ScanMining) -> dict[str, int]:
    return one.take(one.look("cpu"))


def test_false_lesions_against_each_component_by_itself() -> None:
    """Those of the marked voxels whose dilation by one voxel holds no annotated voxel, found one by one."""
    random = np.random.default_rng(0)
    for _ in range(20):
        marked, labels = random.random((9, 9, 9)) < 0.06, (random.random((9, 9, 9)) < 0.01).astype(np.uint8)
        labels[random.random((9, 9, 9)) < 0.05] = 255
        components, count = ndimage.label(marked & (labels != 255), np.ones((3, 3, 3)))
        expected = []
        for number in range(1, count + 1):
            near = ndimage.binary_dilation(components == number, np.ones((3, 3, 3)))
            if not (near & (labels == 1)).any():
                expected.append(number)
        number, middles = false_lesions(marked, labels)
        found = [int(components[voxel]) for voxel in middles]
        assert number == len(expected) and sorted(found) == expected
        assert false_lesions(marked, labels, 2) == (number, middles[:2])
        sizes = [int((components == number).sum()) for number in found]
        assert sizes == sorted(sizes, reverse=True)


def test_nothing_marked_gives_nothing() -> None:
    assert false_lesions(np.zeros((3, 3), bool), np.zeros((3, 3), np.uint8)) == (0, [])
    assert false_lesions(np.ones((3, 3), bool), np.eye(3, dtype=np.uint8)) == (0, [])


@pytest.mark.parametrize("scores", [False, True])
def test_the_patches_about_false_lesions_join_the_hard_ones(scores: bool) -> None:
    """About (2, 3, 4) a patch of 4³ that begins 2 before it; (9, 9, 2) begins at 7, 7, 0, and ends beside the lesion.

    Of the marked voxels of the patch those that are wrong count: (2, 3, 4) alone, and both of the component of two.
    """
    data = dataset()
    one = mining(data, Marks(scores=scores))
    assert mine(one) == {"scans": 1, "false_lesions": 2, "patches": 2}
    assert one.hard.scores == {(0, (0, 1, 2)): 1, (0, (7, 7, 0)): 2}
    for case, start in one.hard.scores:
        block = tuple(slice(s, s + 4) for s in start)
        assert not (data.data[case]["label"][0][block] == 1).any()
    assert one.network.training


def test_scans_come_in_turn_and_what_nobody_annotated_is_not_wrong() -> None:
    inferer = Marks()
    one = mining(dataset(), inferer)
    told = [mine(one) for _ in range(3)]
    assert inferer.seen == [0, 1, 0]
    assert told[1] == {"scans": 1, "false_lesions": 1, "patches": 1}
    assert set(one.hard.scores) == {(0, (0, 1, 2)), (0, (7, 7, 0)), (1, (7, 7, 0))}
    more = mining(dataset(), scans=5)
    assert mine(more)["scans"] == 2  # each of them once, however many are asked for


def test_the_score_is_counted_in_the_region_that_the_loss_sees() -> None:
    """With a margin of 1 a patch of 4³ has an effective region of 2³, here without (10, 9, 2)."""
    one = mining(dataset(margin=1))
    mine(one)
    assert one.hard.scores == {(0, (0, 1, 2)): 1, (0, (7, 7, 0)): 1}


def test_a_false_lesion_beside_a_lesion_gives_the_nearest_patch_without_it_or_none() -> None:
    """About (8, 8, 8) a patch of 4³ would begin at 6, 6, 6 and hold the lesion there; three are one voxel off.

    Of 6³ those without the lesion begin at 0 along some axis, and end before 8."""

    def at_888(image: torch.Tensor, _: torch.nn.Module) -> torch.Tensor:
        return (torch.arange(12**3) == 8 * 157).reshape(image.shape).long()

    one = mining(dataset(), at_888)
    assert mine(one) == {"scans": 1, "false_lesions": 1, "patches": 1}
    assert one.hard.scores == {(0, (6, 6, 7)): 1}
    assert mine(mining(dataset(size=6), at_888)) == {"scans": 1, "false_lesions": 1, "patches": 0}


def test_the_largest_count_where_there_are_many() -> None:
    one = mining(dataset(), most=1)
    assert mine(one) == {"scans": 1, "false_lesions": 2, "patches": 1}
    assert one.hard.scores == {(0, (7, 7, 0)): 2}


def test_a_signal_leaves_everything_as_it_was() -> None:
    one = mining(dataset(), scans=2)
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 1

    assert one.look("cpu", stopped).scans == 1
    assert one.hard.scores == {} and one.turn == 0


def test_it_goes_on_at_its_turn() -> None:
    start = mining(dataset())
    mine(start)
    inferer = Marks()
    resumed = mining(dataset(), inferer)
    resumed.load_state_dict(start.state_dict())
    resumed.hard.load_state_dict(start.hard.state_dict())
    mine(resumed)
    mine(start)
    assert inferer.seen == [1] and resumed.hard.scores == start.hard.scores


def test_what_is_told_is_what_is_remembered() -> None:
    one = mining(dataset())
    one.hard.kept = 1
    assert mine(one) == {"scans": 1, "false_lesions": 2, "patches": 1}


def test_scans_without_patches_that_hold_no_foreground_are_passed_over() -> None:
    """All patches of 10³ in 12³ hold the lesion in the middle; a case of foreground alone has none either."""
    assert mine(mining(dataset(size=10))) == {"scans": 0, "false_lesions": 0, "patches": 0}
    data = dataset()
    data.data[0]["label"][...] = 1
    whole = IndexForegroundd(sampler=data.patch.sampler, patch_size=(4, 4, 4))
    data.data = [whole({key: data.data[0][key] for key in ("image", "label")}), data.data[1]]
    inferer = Marks()
    one = mining(data, inferer, scans=2)
    assert mine(one)["scans"] == 1 and inferer.seen == [1] and one.voxels() == 12**3


def test_all_processes_take_what_one_has_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes with a scan each time the first predicts it."""
    one, other = mining(dataset()), mining(dataset())
    found: list[Any] = []
    monkeypatch.setattr("rarevox.pipeline.training.processes.count", lambda: 2)
    for rank, process in ((0, one), (1, other)):
        monkeypatch.setattr("rarevox.pipeline.training.processes.rank", lambda rank=rank: rank)
        monkeypatch.setattr("rarevox.pipeline.training.processes.gather", lambda own: found.append(own) or list(found))
        mined = process.look("cpu")
        process.take(mined)
    assert other.hard.scores == one.hard.scores != {} and mined.scans == 1


def test_a_case_that_is_left_out_on_resuming_is_forgotten_and_others_keep_their_patches() -> None:
    def named(*names: str) -> PatchDataset:
        data = dataset()
        by = dict(zip("ab", data.data, strict=True))
        data.data = [{**by[name], "case": name} for name in names]
        return data

    start = mining(named("a", "b"), scans=2)
    mine(start)
    hard = HardPatches(named("b"), share=0.5)
    hard.load_state_dict(start.hard.state_dict())
    assert hard.scores == {(0, (7, 7, 0)): 2}


def test_earlier_checkpoints_named_hard_patches_by_their_draws() -> None:
    hard = HardPatches(dataset(), share=0.5)
    hard.load_state_dict({"scores": [[[1, 7], [5, 9]]]})
    assert hard.scores == {hard.dataset.place_of(1): 7, hard.dataset.place_of(5): 9}


def test_wrong_requests() -> None:
    with pytest.raises(ValueError, match="scans is -1"):
        mining(dataset(), scans=-1)
    with pytest.raises(ValueError, match="set hard_share too"):
        ScanMining(HardPatches(dataset()), scans=1, inferer=Marks(), network=torch.nn.Identity())
