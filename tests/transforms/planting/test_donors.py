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


def weights(donor: Donor) -> np.ndarray:
    """The weights in a box two voxels larger than the lesion."""
    box = np.zeros([n + 4 for n in donor.size], np.float32)
    box[tuple((donor.at + 2).T)] = donor.weight
    return box


def test_a_donor_by_hand() -> None:
    """A cube of 3 in tissue of 1: it differs by 2, and its rim falls by thirds."""
    (donor,) = taken(*cube(3.0))
    assert (donor.held, donor.voxels, donor.size) == ({2}, 8, (2, 2, 2))
    assert donor.change is not None and donor.tissue is not None and donor.spread is not None
    assert (donor.tissue.tolist(), donor.spread.tolist()) == ([1.0], [0.0])
    assert donor.change[0][donor.classes > 0].tolist() == [2.0] * 8
    assert not donor.change[0][donor.classes == 0].any()
    expected = np.full((6, 6, 6), 1 / 3)
    expected[1:5, 1:5, 1:5] = 2 / 3
    expected[2:4, 2:4, 2:4] = 1
    np.testing.assert_allclose(weights(donor), expected, rtol=1e-6)
    assert (donor.classes[:8] == 2).all() and (donor.weight[:8] == 1).all()


def test_a_lesion_of_rings_is_one_donor_with_the_class_of_each_voxel() -> None:
    """A core of 1 and of class 3 in an oedema of class 2: neither a hollow ring nor a core alone is planted."""
    image, labels = cube(3.0, size=3)
    labels[6, 6, 6], image[0, 6, 6, 6] = 3, 9.0
    (donor,) = taken(image, labels)
    assert (donor.held, donor.voxels, donor.size) == ({2, 3}, 27, (3, 3, 3))
    box = np.zeros(donor.size, int)
    inside = donor.classes > 0
    box[tuple(donor.at[inside].T)] = donor.classes[inside]
    np.testing.assert_array_equal(box, labels[5:8, 5:8, 5:8].numpy())
    assert donor.change is not None
    assert sorted(donor.change[0][inside].tolist()) == [2.0] * 26 + [8.0]
    # A class that is not planted is none of the lesion, and its voxels are not planted along.
    (ring,) = taken(image, labels, classes=[2])
    assert (ring.held, ring.voxels) == ({2}, 26)


def test_parts_that_cancel_out_stand_out_all_the_same() -> None:
    """Half of the lesion as much brighter as the other, of another class, is darker: its mean is the tissue's."""
    image, labels = cube(3.0)
    labels[5], image[0, 5][labels[5] > 0] = torch.where(labels[5] > 0, 1, 0).to(labels.dtype), -1.0
    assert len(taken(image, labels)) == 1


def test_the_rim_leaves_out_other_anatomy_and_other_lesions() -> None:
    image, labels = cube(3.0)
    image[0, 4, 5, 5] = -7.0  # neither tissue nor lesion
    labels[8, 5, 5] = 1  # two voxels beside the cube
    image[0, 8, 5, 5] = 3.0
    donor = next(donor for donor in taken(image, labels) if donor.held == {2})
    weight = weights(donor)
    assert weight[1, 2, 2] == 0 and weight[5, 2, 2] == 0
    assert weight[1, 3, 3] == pytest.approx(2 / 3) and weight[5, 3, 3] == pytest.approx(1 / 3)


def test_at_the_border_of_the_volume_the_rim_ends() -> None:
    image, labels = torch.ones(1, 9, 9, 9), torch.zeros(9, 9, 9, dtype=torch.uint8)
    labels[0, 0, 8] = 1
    image[0, 0, 0, 8] = 4
    (donor,) = taken(image, labels)
    assert donor.voxels == 1 and len(donor.at) == 27
    assert (donor.at[:, :2] >= 0).all() and (donor.at[:, 2] <= 0).all()


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


def test_what_nobody_annotated_is_no_healthy_tissue() -> None:
    """Bright tissue two voxels from a lesion raises the level around it, but not where nobody annotated it."""
    image, labels = cube(3.0)
    image[0, :, :, 9:] = 9
    unknown = np.zeros(labels.shape, bool)
    unknown[:, :, 9:] = True
    (donor,) = taken(image, labels, unknown=unknown)
    assert donor.tissue is not None and donor.spread is not None and donor.change is not None
    assert (donor.tissue.tolist(), donor.spread.tolist()) == ([1.0], [0.0])
    assert not (donor.at[:, 2] >= 9 - 5).any(), "nothing of it comes along as the lesion's rim"
    unknown[:, :, 7:] = True
    assert taken(image, labels) and not taken(image, labels, unknown=unknown), "the lesion may go on there"


def test_mirroring_takes_everything_along() -> None:
    image, labels = cube(3.0, noise=0.1)
    labels[6, 5, 5] = 0
    (donor,) = taken(image, labels)
    other = donor.flipped((0, 2))
    (expected,) = taken(image.flip([1, 3]), labels.flip([0, 2]))
    for name in ("size", "tissue", "spread"):
        np.testing.assert_array_equal(getattr(other, name), getattr(expected, name))
    for one in ("classes", "weight", "change"):
        boxes = []
        for donor in (other, expected):
            box = np.zeros((6, 6, 6), np.float32)
            values = getattr(donor, one)
            box[tuple((donor.at + 2).T)] = values if values.ndim == 1 else values[0]
            boxes.append(box)
        np.testing.assert_array_equal(*boxes, err_msg=one)
    assert set(map(tuple, other.shell.tolist())) == set(map(tuple, expected.shell.tolist()))
