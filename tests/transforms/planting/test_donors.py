from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.transforms.planting.donors import Donor, donors_of

EVERYTHING = {"sizes": (1, 10_000), "extent": (99, 99, 99)}


def cube(value: float, size: int = 2, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue of 1 in 12³ voxels and a cube of ``value`` at 5."""
    image = 1 + noise * np.random.default_rng(0).standard_normal((1, 12, 12, 12)).astype(np.float32)
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[5 : 5 + size, 5 : 5 + size, 5 : 5 + size] = 2
    image[0][labels > 0] = value
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(labels)


def taken(image: torch.Tensor, labels: torch.Tensor, **options: object) -> list[Donor]:
    content = np.ones(labels.shape, bool)
    return list(donors_of(image, labels, content, **(EVERYTHING | options)))  # type: ignore[arg-type]


def test_a_donor_by_hand() -> None:
    """A cube of 3 in tissue of 1: it differs by 2, its box is two voxels larger, its rim falls by thirds."""
    (donor,) = taken(*cube(3.0))
    assert (donor.label, donor.voxels, tuple(donor.mask.shape)) == (2, 8, (6, 6, 6))
    assert donor.change is not None and donor.tissue is not None and donor.spread is not None
    assert (donor.tissue.tolist(), donor.spread.tolist()) == ([1.0], [0.0])
    assert donor.change[0][donor.mask].tolist() == [2.0] * 8
    assert not donor.change[0][~donor.mask].any()
    expected = torch.full((6, 6, 6), 1 / 3)
    expected[1:5, 1:5, 1:5] = 2 / 3
    expected[2:4, 2:4, 2:4] = 1
    torch.testing.assert_close(donor.weight, expected, rtol=1e-6, atol=0)


def test_the_rim_leaves_out_other_anatomy_and_other_lesions() -> None:
    image, labels = cube(3.0)
    image[0, 4, 5, 5] = -7.0  # neither tissue nor lesion
    labels[8, 5, 5] = 1  # two voxels beside the cube
    image[0, 8, 5, 5] = 3.0
    donor = next(donor for donor in taken(image, labels) if donor.label == 2)
    assert donor.weight[1, 2, 2] == 0 and donor.weight[5, 2, 2] == 0
    assert donor.weight[1, 3, 3] == pytest.approx(2 / 3) and donor.weight[5, 3, 3] == pytest.approx(1 / 3)


def test_at_the_border_of_the_volume_the_box_is_filled() -> None:
    image, labels = torch.ones(1, 9, 9, 9), torch.zeros(9, 9, 9, dtype=torch.uint8)
    labels[0, 0, 8] = 1
    image[0, 0, 0, 8] = 4
    (donor,) = taken(image, labels)
    assert tuple(donor.mask.shape) == (5, 5, 5) and bool(donor.mask[2, 2, 2]) and int(donor.mask.sum()) == 1
    assert not donor.weight[:2].any() and not donor.weight[:, :, 3:].any()


@pytest.mark.parametrize("options", [{"sizes": (9, 99)}, {"sizes": (1, 7)}, {"extent": (2, 2, 1)}], ids=str)
def test_sizes_and_extents_are_kept(options: dict[str, object]) -> None:
    assert not taken(*cube(3.0), **options)


def test_what_does_not_stand_out_is_no_donor() -> None:
    """Half a standard deviation of the tissue is not enough; three are: it is measured within a factor two."""
    assert not taken(*cube(1.05, noise=0.1))
    assert not taken(*cube(1.0))
    assert len(taken(*cube(1.3, noise=0.1))) == 1


def test_a_lesion_without_healthy_tissue_around_is_no_donor() -> None:
    image, labels = cube(3.0)
    content = labels.numpy() > 0
    assert not list(donors_of(image, labels, content, sizes=(1, 99), extent=(9, 9, 9)))


def test_mirroring_takes_everything_along() -> None:
    image, labels = cube(3.0, noise=0.1)
    (donor,) = taken(image, labels)
    other = donor.flipped((0, 2))
    (expected,) = taken(image.flip([1, 3]), labels.flip([0, 2]))
    for name in ("mask", "weight", "change", "tissue", "spread"):
        assert torch.equal(getattr(other, name), getattr(expected, name)), name
