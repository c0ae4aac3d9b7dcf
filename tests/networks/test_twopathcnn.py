"""TwoPathCNN: the sizes of table 1, maxout, the alignment of its paths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.networks import TwoPathCNN
from rarevox.networks.twopathcnn import _Maxout


@pytest.mark.parametrize(("size", "expected"), [(51, 19), (63, 31), (85, 53)])
def test_sizes_of_table_1(size: int, expected: int) -> None:
    network = TwoPathCNN(in_channels=1, out_channels=2, local_features=2, global_features=2)
    assert network(torch.zeros(1, 1, size, size)).shape == (1, 2, expected, expected)


def test_layers_of_the_paper() -> None:
    convolutions = [m for m in TwoPathCNN(in_channels=4, out_channels=5).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0]) for m in convolutions] == [(128, 7), (128, 3), (320, 13), (5, 21)]
    assert convolutions[-1].in_channels == 64 + 160


def test_maxout_is_the_largest_of_its_pieces() -> None:
    layer = _Maxout(1, 2, 1, 2, pieces=2)
    layer.conv.weight.data = torch.tensor([1.0, -1.0, 2.0, 3.0]).view(4, 1, 1, 1)
    layer.conv.bias.data = torch.tensor([0.0, 0.0, 0.0, -1.0])
    # For −2: max(−2, 2) = 2 and max(−4, −7) = −4; for 3: max(3, −3) = 3 and max(6, 8) = 8.
    assert layer(torch.tensor([[[[-2.0, 3.0]]]])).flatten().tolist() == [2.0, 3.0, -4.0, 8.0]


def test_three_dimensions() -> None:
    network = TwoPathCNN(in_channels=1, out_channels=2, spatial_dims=3, local_features=1, global_features=1)
    assert network(torch.zeros(1, 1, 33, 34, 33)).shape == (1, 2, 1, 2, 1)


def test_output_voxels_lie_at_the_centre_of_what_they_see() -> None:
    network = TwoPathCNN(in_channels=1, out_channels=1, local_features=1, global_features=1).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1.0)
    x = torch.rand(1, 1, 35, 35, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 1, 1], x)
    # All weights are 1, so that what is seen has a gradient of at least 1, and what is not has rounding at most.
    seen = torch.nonzero(gradient[0, 0] > 0.5)
    # Output voxel 1 lies on input voxel 1 + 16 and sees 16 voxels on either side of it.
    assert seen.min(0).values.tolist() == [1, 1]
    assert seen.max(0).values.tolist() == [33, 33]
