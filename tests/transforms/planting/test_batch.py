from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms import BatchPlantLesions, LesionLibrary, RandPlantLesionsd
from tests.transforms.planting.scans import scan

LIBRARY = LesionLibrary([scan(0), scan(1)])
KINDS = ["foreground", "background", "hard", "foreground"]


def batch(rows: list[int]) -> dict[str, torch.Tensor]:
    scans = [scan(50 + row, lesions=row % 3) for row in rows]
    patches = {key: torch.stack([one[key] for one in scans]) for key in scans[0]}
    return {**patches, "mask": (patches["image"][:, :1] != -5).to(torch.uint8)}


def planted(
    rows: list[int], kinds: list[str] | None = None, *, together: bool | None = True, **options: object
) -> dict[str, torch.Tensor]:
    one = RandPlantLesionsd("image", LIBRARY, **({"prob": 1.0} | options))  # type: ignore[arg-type]
    return BatchPlantLesions(one, together=together)(batch(rows), [np.random.default_rng(row) for row in rows], kinds)


def test_a_patch_comes_out_the_same_in_every_batch() -> None:
    """To the bit, whatever is planted beside it, at once or one after the other."""
    whole = planted([0, 1, 2, 3], prob=0.7)
    one_by_one = planted([0, 1, 2, 3], prob=0.7, together=None)
    assert all(torch.equal(one_by_one[key], whole[key]) for key in whole)
    assert 0 < int((whole["planted"][:, 0] > 0).sum()) <= 4
    for row in range(4):
        single = planted([row], prob=0.7)
        assert all(torch.equal(single[key][0], whole[key][row]) for key in whole)


def test_it_plants_by_the_rules_of_single_patches() -> None:
    before, after = batch([0, 1, 2, 3]), planted([0, 1, 2, 3])
    assert "mask" not in after and after["planted_lesions"].shape == (4, 3, 2)
    for row in range(4):
        new = after["label"][row] != before["label"][row]
        assert int(new.sum()) == int(after["planted"][row, 1]) > 0
        assert (before["label"][row][new] == 0).all() and not new[before["mask"][row] == 0].any()
        rows = after["planted_lesions"][row]
        assert [int((rows[:, 1] > 0).sum()), int(rows[:, 1].sum())] == after["planted"][row].tolist()


@pytest.mark.parametrize(("into", "wanted"), [("foreground", [0, 3]), ("background", [1]), ("any", [0, 1, 3])])
def test_into_what_was_drawn_for_it(into: str, wanted: list[int]) -> None:
    before, after = batch([0, 1, 2, 3]), planted([0, 1, 2, 3], KINDS, into=into)
    assert (after["planted"][:, 0] > 0).nonzero()[:, 0].tolist() == wanted
    for row in set(range(4)) - set(wanted):
        assert all(torch.equal(after[key][row], before[key][row]) for key in ("image", "label"))


@pytest.mark.parametrize(("into", "wanted"), [("foreground", [1, 2]), ("background", [0, 3])])
def test_patches_that_do_not_say_what_they_were_drawn_for_are_looked_at(into: str, wanted: list[int]) -> None:
    """Patches 0 and 3 hold no lesion."""
    after = planted([0, 1, 2, 3], into=into)
    assert (after["planted"][:, 0] > 0).nonzero()[:, 0].tolist() == wanted


def test_a_share_of_nothing_changes_nothing() -> None:
    before, after = batch([0, 1]), planted([0, 1], prob=0.0)
    assert all(torch.equal(after[key], before[key]) for key in ("image", "label"))
    assert after["planted"].tolist() == [[0, 0]] * 2 and (after["planted_lesions"][..., 0] == -1).all()


def test_label_maps_of_several_channels_are_refused() -> None:
    one = BatchPlantLesions(RandPlantLesionsd("image", LIBRARY, prob=1.0))
    patches = batch([0])
    patches["label"] = patches["label"].repeat(1, 2, 1, 1, 1)
    with pytest.raises(ValueError, match="2 channels"):
        one(patches, [np.random.default_rng(0)])


@pytest.mark.gpu
def test_a_device_plants_what_the_cpu_plants() -> None:
    """The same lesions at the same places: medians are numbers of the patch. Intensities differ by rounding: five
    operations on numbers of at most 5, of 2⁻²⁴ each."""
    generators = [np.random.default_rng(row) for row in range(4)]
    one = BatchPlantLesions(RandPlantLesionsd("image", LIBRARY, prob=1.0))
    there = one({key: value.cuda() for key, value in batch([0, 1, 2, 3]).items()}, generators)
    here = planted([0, 1, 2, 3])
    for key in ("label", "planted", "planted_lesions"):
        assert torch.equal(there[key].cpu(), here[key]), key
    torch.testing.assert_close(there["image"].cpu(), here["image"], rtol=0, atol=5 * 5 * 2**-24)
