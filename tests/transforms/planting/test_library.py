from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.transforms import LesionLibrary

from .scans import scan

CASES = [scan(0), scan(1)]


def held(library: LesionLibrary) -> set[int]:
    return set().union(*(donor.held for donor in library.donors))


def test_it_holds_the_cases_lesions_by_size() -> None:
    library = LesionLibrary(CASES)
    sizes = [donor.voxels for donor in library.donors]
    assert len(sizes) == 6 and sizes == sorted(sizes)
    assert sum(sizes) == sum(int((case["label"] > 0).sum()) for case in CASES)
    assert {donor.case for donor in library.donors} == {0, 1}


def test_limits_hold_the_content_alone() -> None:
    """Tissue, lesions and noise lie within −2 − 5·0.1 and 2 + 1.5 + 5·0.1; the air at −5 does not."""
    limits = LesionLibrary(CASES).limits
    assert limits.shape == (2, 2)
    assert (limits[:, 0] > -2.5).all() and (limits[:, 1] < 4).all() and (limits[:, 1] > limits[:, 0]).all()


def test_voxels_that_nobody_annotated_are_no_lesion() -> None:
    case = scan(0, lesions=1)
    case["label"][0, 10:14, 10:14, 10:14] = 255
    assert held(LesionLibrary([case])) == {1}


def test_voxels_that_nobody_annotated_are_no_tissue_around_a_lesion() -> None:
    """A lesion beside them is no donor; without them it is one."""
    case = scan(0, lesions=1)
    inside = case["label"][0].nonzero()
    assert len(LesionLibrary([case]).donors) == 1
    case["label"][0, :, : int(inside[:, 1].min())] = 255
    assert LesionLibrary([case]).donors == []


def test_classes_may_be_chosen() -> None:
    case = scan(0)
    case["label"][0, :, 16:][case["label"][0, :, 16:] > 0] = 2
    assert held(LesionLibrary([case])) == {1, 2}
    assert held(LesionLibrary([case], classes=[2])) == {2}


def test_draws_are_even_over_lesions_or_over_octaves() -> None:
    """Of n draws with probability p a count lies within five standard deviations, 5·√(n p (1 − p)), of n p."""
    case = scan(0, lesions=0)
    for number, size in enumerate((1, 1, 1, 3)):  # three of 1 voxel, one of 27
        where = (slice(6, 6 + size), slice(5 + 5 * number, 5 + 5 * number + size), slice(8, 8 + size))
        case["label"][0][where] = 1
        case["image"][(slice(None), *where)] += 1.5
    for draw, share in (("as_found", 1 / 4), ("log_size", 1 / 2)):
        library, random, n = LesionLibrary([case], sizes=(1, 99), draw=draw), np.random.RandomState(0), 2000
        large = Counter(library.draw(random).voxels for _ in range(n))[27]
        assert abs(large - n * share) < 5 * math.sqrt(n * share * (1 - share)), draw


def saved(folder: Path, edge: float = 1.0) -> Path:
    """A map of one lesion of four voxels."""
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:5, 4, 4] = mask[2, 4, 5] = 7
    nib.save(nib.Nifti1Image(mask, np.diag([edge, edge, edge, 1.0])), folder / "a.nii.gz")
    return folder


def of_two_classes() -> dict[str, torch.Tensor]:
    """Lesions of class 1, 1.5 brighter, and one of class 2, 4 brighter."""
    case = scan(0)
    where = (slice(10, 13), slice(10, 13), slice(15, 18))
    case["label"][0][where] = 2
    case["image"][(slice(None), *where)] += 4
    return case


def test_shapes_of_maps_take_the_contrast_of_lesions(tmp_path: Path) -> None:
    library = LesionLibrary(CASES, maps=saved(tmp_path), maps_share=1.0)
    donor = library.draw(np.random.RandomState(0))
    assert (donor.held, donor.voxels, donor.case) == ({1}, 4, -2)
    assert donor.change is not None and donor.tissue is not None
    # Lesions are 1.5 brighter; the noise of the few voxels that a lesion has is 0.1.
    np.testing.assert_allclose(donor.change[:, donor.classes > 0].mean(1), [1.5, 1.5], atol=0.3)
    np.testing.assert_allclose(donor.tissue, [1, -1], atol=0.1)


def test_shapes_pass_into_the_tissue_as_lesions_do(tmp_path: Path) -> None:
    """Sharp lesions: what lies beside them, 0 and not 1.5, is tissue.

    The shape's noise of 0.1 is that of (4/4)²/(3/8) voxels along each axis, so of 19: its mean over a ring of 46 voxels
    or more is 0.1 · √(19/46) off, and the lesion's own, over 40 or more, 0.1/√40.
    """
    error = 0.1 * math.sqrt(19 / 46 + 1 / 40)
    library = LesionLibrary(CASES, maps=saved(tmp_path), maps_share=1.0)
    for seed in range(6):
        donor = library.draw(np.random.RandomState(seed))
        assert donor.change is not None
        for weight in (2 / 3, 1 / 3):
            assert np.abs(donor.change[:, donor.weight == np.float32(weight)].mean(1)).max() < 5 * error


@pytest.mark.parametrize("options", [{"classes": [2]}, {"map_class": 2}, {"classes": [1, 2], "map_class": 2}], ids=str)
def test_shapes_are_of_the_class_that_is_planted_in_label_and_contrast(
    tmp_path: Path, options: dict[str, object]
) -> None:
    """Lesions of class 2 are 4 brighter; the mean of four voxels of noise 0.1 is 0.05 off."""
    library = LesionLibrary([of_two_classes()], maps=saved(tmp_path), maps_share=1.0, **options)  # type: ignore[arg-type]
    for seed in range(4):
        donor = library.draw(np.random.RandomState(seed))
        assert donor.held == {2} and donor.change is not None
        np.testing.assert_allclose(donor.change[:, donor.classes > 0].mean(1), [4, 4], atol=0.4)


def test_shapes_whose_class_may_be_either_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="map_class to be one of those that may be planted: 1, 2"):
        LesionLibrary([of_two_classes()], maps=saved(tmp_path), classes=[1, 2])
    with pytest.raises(ValueError, match="map_class"):
        _ = LesionLibrary([of_two_classes()], maps=saved(tmp_path)).shapes
    with pytest.raises(ValueError, match="map_class is 1"):
        LesionLibrary([of_two_classes()], maps=saved(tmp_path), classes=[2], map_class=1)


def test_shapes_without_a_lesion_of_their_class_take_no_other_s_contrast(tmp_path: Path) -> None:
    library = LesionLibrary(CASES, maps=saved(tmp_path), maps_share=1.0, map_class=2)
    assert library.shapes == [] and library.draw(np.random.RandomState(0)).held == {1}


def test_shapes_come_on_the_grid_of_the_cases(tmp_path: Path) -> None:
    """Four voxels of 2 mm are thirty-two of 1 mm."""
    cases = [{**case, "affine": torch.eye(4, dtype=torch.float64)} for case in CASES]
    assert [shape.voxels for shape in LesionLibrary(cases, maps=saved(tmp_path, 2.0)).shapes] == [32]


def test_a_case_s_mask_says_what_is_tissue() -> None:
    """Around a lesion nothing but what lies in the mask is measured: tissue of 1 lies within, of 2 without."""
    case = scan(0, lesions=1)
    case["image"][:, 10:] = 9.0
    case["mask"] = torch.ones_like(case["label"])
    case["mask"][:, 10:] = 0
    (donor,) = LesionLibrary([case]).donors
    assert donor.tissue is not None
    np.testing.assert_allclose(donor.tissue, [1, -1], atol=0.1)


def test_limits_hold_lesions_that_are_few() -> None:
    """One lesion of 8 voxels of 10,000, a thousandth of the content at most, is brighter than all tissue."""
    case = scan(0, lesions=0)
    where = (slice(6, 8),) * 3
    case["label"][0][where], case["image"][(slice(None), *where)] = 1, 30.0
    limits = LesionLibrary([case]).limits
    assert (limits[:, 1] == 30).all() and (limits[:, 0] > -2.5).all()


def test_nothing_is_read_before_a_lesion_is_asked_for() -> None:
    class Unread(list[dict[str, torch.Tensor]]):
        def __getitem__(self, place: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
            raise AssertionError("read")

    library = LesionLibrary(Unread([{}]))
    with pytest.raises(AssertionError, match="read"):
        _ = library.donors


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no lesion maps"):
        _ = LesionLibrary(CASES, maps=tmp_path).shapes
    for wrong in ({"draw": "large"}, {"maps_share": 2}, {"sizes": [5, 2]}, {"sizes": [0, 2]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LesionLibrary(CASES, **wrong)  # type: ignore[arg-type]


def test_a_case_whose_mask_is_empty_gives_nothing() -> None:
    empty = {**scan(1), "mask": torch.zeros_like(torch.as_tensor(scan(1)["label"]))}
    library, alone = LesionLibrary([CASES[0], empty]), LesionLibrary([CASES[0]])
    assert [donor.voxels for donor in library.donors] == [donor.voxels for donor in alone.donors]
    np.testing.assert_array_equal(library.limits, alone.limits)
    with pytest.raises(ValueError, match="masks of all training cases are empty"):
        _ = LesionLibrary([empty]).donors


def test_lesions_of_slices_are_mirrored_along_the_axes_that_they_have() -> None:
    donor = LesionLibrary(CASES).donors[0]
    flat = replace(donor, size=donor.size[:2], at=donor.at[:, :2], shell=donor.shell[:, :2])
    mirrored = flat.flipped((0, 1, 2))
    np.testing.assert_array_equal(mirrored.at, np.array(flat.size) - 1 - flat.at)
    assert flat.flipped((2,)) is flat
