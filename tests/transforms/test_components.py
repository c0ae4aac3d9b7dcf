"""Which component each voxel belongs to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from rarevox.transforms import ComponentRegionsd, component_regions


def two_lesions():
    """A lesion of one voxel at one end of a line of 12 and one of four at the other; their regions meet at 4 | 5."""
    labels = torch.zeros(1, 12, dtype=torch.int64)
    labels[0, 0] = 1
    labels[0, 8:] = 1
    return labels


def test_every_voxel_belongs_to_the_nearest_component():
    # Voxel 4 lies 4 from either lesion; a tie may go either way.
    regions = component_regions(two_lesions(), num_classes=2)[0].tolist()
    assert regions[:4] == [1] * 4
    assert regions[5:] == [2] * 7


def test_distance_is_taken_in_mm():
    labels = torch.zeros(1, 4, 7, dtype=torch.uint8)
    labels[0, 0, 0], labels[0, 3, 6] = 1, 1
    # (0, 4) is 4 columns from the first and 2 columns and 3 rows from the second: 4 against √13 = 3.6 voxels,
    # with rows of 5 mm 4 against √(4 + 225) = 15.1 mm.
    assert component_regions(labels, num_classes=2)[0, 0, 4] == 2
    assert component_regions(labels, num_classes=2, spacing_mm=(5.0, 1.0))[0, 0, 4] == 1


def test_corners_connect_and_classes_are_apart():
    labels = torch.tensor([[[1, 0, 0], [0, 1, 2], [0, 0, 2]]])
    regions = component_regions(labels, num_classes=4)
    assert regions.shape == (3, 3, 3)
    assert (regions[0] == 1).all()
    assert (regions[1] == 1).all()
    assert (regions[2] == 0).all()  # class 3 is absent


def test_the_transform_appends_regions_in_mm():
    labels = torch.zeros(1, 4, 7, 1, dtype=torch.uint8)
    labels[0, 0, 0], labels[0, 3, 6] = 1, 1
    # As above: voxel (0, 4) goes to the first lesion once rows are 5 mm apart.
    stretched = MetaTensor(labels, affine=torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0])))
    both = ComponentRegionsd("label", num_classes=2)({"label": stretched, "image": None})["label"]
    assert isinstance(both, MetaTensor)
    assert both.shape == (2, 4, 7, 1)
    assert torch.equal(both[:1].as_tensor(), labels.int())
    assert both[1, 0, 4, 0] == 1
    np.testing.assert_array_equal(both.affine, stretched.affine)


def test_labels_without_channel_and_single_classes_are_refused():
    with pytest.raises(ValueError, match=r"labels have shape \(12,\)"):
        component_regions(torch.zeros(12), num_classes=2)
    with pytest.raises(ValueError, match="num_classes=1"):
        component_regions(torch.zeros(1, 12), num_classes=1)
