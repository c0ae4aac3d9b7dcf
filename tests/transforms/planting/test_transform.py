"""What planting promises of every patch: labels, places, intensities, randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.transforms import LesionLibrary, RandPlantLesionsd

from .scans import SIZE, scan

LIBRARY = LesionLibrary([scan(0), scan(1)])
FULL = np.ones((3, 3, 3))


def planted(seed: int, **options: object) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    before = scan(50 + seed, lesions=seed % 3)
    options = {"prob": 1.0, "count": (1, 3)} | options
    transform = RandPlantLesionsd("image", LIBRARY, **options).set_random_state(seed=seed)  # type: ignore[arg-type]
    return before, transform({key: value.clone() for key, value in before.items()})


@pytest.mark.parametrize("seed", range(12))
def test_labels_and_intensities_follow(seed: int) -> None:
    before, after = planted(seed)
    new = (after["label"] != before["label"])[0]
    lesions, voxels = after["planted"].tolist()
    assert (int(new.sum()), ndimage.label(new, FULL)[1]) == (voxels, lesions)
    assert lesions > 0
    assert (before["label"][0][new] == 0).all() and (after["label"][0][new] == 1).all()
    # Not beside other lesions: each stays one of its own.
    assert ndimage.label(after["label"][0], FULL)[1] == ndimage.label(before["label"][0], FULL)[1] + lesions
    # Two voxels around at most, and never in the air or in a lesion that was there.
    changed = (after["image"] != before["image"]).any(0)
    near = ndimage.binary_dilation(new.numpy(), FULL, iterations=2)
    assert not changed.numpy()[~near].any()
    assert not changed[before["image"][0] == -5].any() and not new[before["image"][0] == -5].any()
    assert not changed[before["label"][0] != 0].any()
    # Lesions of 1.5 stand out as they did; spreads of shells of 100 voxels or more differ by √2 · 0.12 of themselves.
    values = after["image"][:, new]
    assert abs((values - before["image"][:, new]).mean() / 1.5 - 1) < 5 * 0.17
    limits = torch.from_numpy(LIBRARY.limits)
    assert (values >= limits[:, :1]).all() and (values <= limits[:, 1:]).all()


def test_lesions_come_into_the_tissue_that_they_came_from() -> None:
    """All donors lie in the tissue of 1; that of 2 begins at 20."""
    for seed in range(12):
        before, after = planted(seed)
        assert int((after["label"] != before["label"]).nonzero()[:, 1].max()) < 20


def test_a_seed_decides() -> None:
    (_, one), (_, again) = planted(3), planted(3)
    assert all(torch.equal(one[key], again[key]) for key in one)
    other = RandPlantLesionsd("image", LIBRARY, prob=1.0).set_random_state(seed=99)(scan(53, lesions=0))
    assert not torch.equal(other["label"], one["label"])


def test_a_share_of_nothing_changes_nothing() -> None:
    before, after = planted(0, prob=0.0)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert after["planted"].tolist() == [0, 0]


def test_the_patch_that_came_in_stays_as_it_was() -> None:
    before = scan(7, lesions=1)
    kept = {key: value.clone() for key, value in before.items()}
    after = RandPlantLesionsd("image", LIBRARY, prob=1.0).set_random_state(seed=0)(before)
    assert after["planted"][0] > 0
    assert all(torch.equal(before[key], kept[key]) for key in kept)


@pytest.mark.parametrize("into", ["background", "foreground"])
def test_patches_are_chosen_by_what_they_hold(into: str) -> None:
    for lesions in (0, 1):
        transform = RandPlantLesionsd("image", LIBRARY, prob=1.0, into=into).set_random_state(seed=0)
        after = transform(scan(3, lesions=lesions))
        assert bool(after["planted"][0] > 0) == (into == ("foreground" if lesions else "background"))


@pytest.mark.parametrize("into", ["background", "foreground"])
def test_voxels_that_nobody_annotated_are_no_foreground(into: str) -> None:
    before = scan(3, lesions=0)
    before["label"][0, :, :6] = 255
    after = RandPlantLesionsd("image", LIBRARY, prob=1.0, into=into).set_random_state(seed=0)(before)
    assert bool(after["planted"][0] > 0) == (into == "background")


@pytest.mark.parametrize("into", ["any", "background", "foreground"])
@pytest.mark.parametrize("drawn_for", ["background", "foreground", "hard"])
def test_a_patch_that_says_what_it_was_drawn_for_is_taken_at_its_word(into: str, drawn_for: str) -> None:
    """Whatever it holds; one that was drawn again for what a network marked there is never planted into."""
    for lesions in (0, 1):
        transform = RandPlantLesionsd("image", LIBRARY, prob=1.0, into=into).set_random_state(seed=0)
        after = transform({**scan(3, lesions=lesions), "drawn_for": drawn_for})
        wanted = drawn_for != "hard" and into in ("any", drawn_for)
        assert bool(after["planted"][0] > 0) == wanted


def test_what_was_planted_is_told() -> None:
    """Case, and voxels of each class; the rows sum up to the totals."""
    case = scan(0)
    case["label"][case["label"] > 0] = 3
    library = LesionLibrary([scan(1, lesions=0), case])
    for seed in range(6):
        before = scan(40 + seed, lesions=0)
        after = RandPlantLesionsd("image", library, prob=1.0).set_random_state(seed=seed)(before)
        rows = after["planted_lesions"]
        assert rows.shape == (3, 4)
        assert set(rows[:, 0].tolist()) <= {1, -1} and ((rows[:, 0] == -1) == (rows[:, 1:].sum(1) == 0)).all()
        assert after["planted"].tolist() == [int((rows[:, 3] > 0).sum()), int(rows.sum(0)[3])]
        assert int((after["label"] == 3).sum()) == int(rows[:, 3].sum()) > 0


def test_lesions_lie_in_the_mask_alone() -> None:
    """An unstripped head: noisy air and a scalp of the tissue's intensity, which no value tells from the brain."""
    brain = torch.zeros(1, *SIZE, dtype=torch.uint8)
    brain[:, 4:18, 4:24, 3:21] = 1
    lesions = 0
    for seed in range(12):
        before = scan(70 + seed, lesions=0)
        random = torch.Generator().manual_seed(seed)
        outside = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1) + 0.1 * torch.randn(2, *SIZE, generator=random)
        before["image"] = torch.where(brain > 0, before["image"], outside)
        transform = RandPlantLesionsd("image", LIBRARY, prob=1.0).set_random_state(seed=seed)
        after = transform({**before, "mask": brain})
        new = after["label"] != before["label"]
        assert not new[brain == 0].any() and "mask" not in after
        assert not (after["image"] != before["image"]).any(0)[brain[0] == 0].any()
        lesions += int(after["planted"][0])
    assert lesions >= 12


def test_lesions_lie_where_the_loss_sees_them() -> None:
    for seed in range(8):
        before, after = planted(seed, margin=(8, 8, 4))
        new = (after["label"] != before["label"])[0].nonzero()
        assert (new >= torch.tensor([8, 8, 4])).all() and (new < torch.tensor([24, 20, 20])).all()


def test_voxels_that_nobody_annotated_are_left_alone() -> None:
    before = scan(60, lesions=0)
    before["label"][0, :, :14] = 255
    after = RandPlantLesionsd("image", LIBRARY, prob=1.0, count=(3, 3)).set_random_state(seed=1)(before)
    assert (after["label"][0, :, :14] == 255).all() and torch.equal(
        after["image"][:, :, :14], before["image"][:, :, :14]
    )


def test_without_any_lesion_to_plant_nothing_is() -> None:
    library = LesionLibrary([scan(0, lesions=0)])
    before = scan(1)
    after = RandPlantLesionsd("image", library, prob=1.0)(before)
    assert library.donors == [] and after["planted"].tolist() == [0, 0]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_errors() -> None:
    wrong: list[dict[str, object]] = [{"prob": 2}, {"count": (0, 1)}, {"count": (3, 1)}, {"into": "all"}]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            RandPlantLesionsd("image", LIBRARY, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one image"):
        RandPlantLesionsd(["image", "other"], LIBRARY)
    case = scan(0)
    with pytest.raises(ValueError, match="2 channels"):
        RandPlantLesionsd("image", LIBRARY, prob=1)({**case, "label": case["label"].repeat(2, 1, 1, 1)})
