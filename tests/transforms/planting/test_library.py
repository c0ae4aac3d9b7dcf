from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.transforms import LesionLibrary

from .scans import scan

CASES = [scan(0), scan(1)]


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
    assert {donor.label for donor in LesionLibrary([case]).donors} == {1}


def test_classes_may_be_chosen() -> None:
    case = scan(0)
    case["label"][0, :, 16:][case["label"][0, :, 16:] > 0] = 2
    assert {donor.label for donor in LesionLibrary([case]).donors} == {1, 2}
    assert {donor.label for donor in LesionLibrary([case], classes=[2]).donors} == {2}


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


def test_shapes_of_maps_take_the_contrast_of_lesions(tmp_path: Path) -> None:
    """A map with its first axis running left: the shape comes mirrored, as the scan itself would."""
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:5, 4, 4] = mask[2, 4, 5] = 7
    nib.save(nib.Nifti1Image(mask, np.diag([-1.0, 1.0, 1.0, 1.0])), tmp_path / "a.nii.gz")
    library = LesionLibrary(CASES, maps=tmp_path, maps_share=1.0)
    donor = library.draw(np.random.RandomState(0))
    assert (donor.label, donor.voxels) == (1, 4)
    expected = np.zeros((3, 1, 2), bool)
    expected[:, 0, 0] = expected[2, 0, 1] = True
    np.testing.assert_array_equal(donor.mask[2:-2, 2:-2, 2:-2].numpy(), expected)
    assert donor.change is not None and donor.tissue is not None
    # Lesions are 1.5 brighter; the noise of the few voxels that a lesion has is 0.1.
    np.testing.assert_allclose(donor.change[:, donor.mask].mean(1), [1.5, 1.5], atol=0.3)
    np.testing.assert_allclose(donor.tissue, [1, -1], atol=0.1)


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
