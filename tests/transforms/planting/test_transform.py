"""What planting promises of every patch: labels, places, intensities, randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.transforms import LesionLibrary, RandPlantLesionsd
from rarevox.transforms.planting.transform import grown

from .scans import scan

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
    assert bool((changed <= grown(grown(new))).all())
    assert not changed[before["image"][0] == -5].any() and not new[before["image"][0] == -5].any()
    assert not changed[before["label"][0] != 0].any()
    # Lesions are seen: 1.5 of contrast, less what the scale of 0.5 may take, stands out from noise of 0.1.
    values = after["image"][:, new]
    assert (values - before["image"][:, new]).mean() > 0.5
    assert (values >= LIBRARY.limits[:, :1]).all() and (values <= LIBRARY.limits[:, 1:]).all()


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


def test_grown_is_a_dilation_by_the_full_neighbourhood() -> None:
    mask = np.random.default_rng(0).random((7, 6, 5)) < 0.05
    expected = ndimage.binary_dilation(mask, FULL)
    np.testing.assert_array_equal(grown(torch.from_numpy(mask)).numpy(), expected)
