"""Dense inference is one pass, whatever the network and however the scan is cut; and it moves with the scan."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rarevox.networks import DeepMedic, Geometry, HighResNet, TwoPathCNN, ValidUNet
from rarevox.networks.slices import SliceWise
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.inference.tiling.memory import activation_bytes

RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck)}


class Pooled(nn.Module):
    """A size-keeping network with a pooled path: sizes are multiples of 4, and its grid must stay in place.

    A 3³ convolution (reach 1), beside it the mean of each block of 4 through another (reach 4 + 3): 15 voxels.
    """

    geometry = Geometry(receptive_field=(15, 15, 15), multiple=4)

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fine(x) + F.interpolate(self.coarse(F.avg_pool3d(x, 4)), scale_factor=4)


def networks_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    small: nn.Module = {
        "unet": lambda: ValidUNet(in_channels=1, out_channels=2, spatial_dims=3, width=1),
        "pooled": Pooled,
        "unet2d": lambda: SliceWise(ValidUNet(in_channels=1, out_channels=2, width=2)),
        "twopathcnn2d": lambda: SliceWise(
            TwoPathCNN(in_channels=1, out_channels=2, local_features=1, global_features=1)
        ),
        "deepmedic2d": lambda: SliceWise(
            DeepMedic(in_channels=1, out_channels=2, spatial_dims=2, channels=(2,) * 8, joint=(3, 3))
        ),
        "two_paths2d": lambda: SliceWise(
            DeepMedic(
                in_channels=1,
                out_channels=2,
                spatial_dims=2,
                channels=(2,) * 8,
                joint=(3, 3),
                low_resolution_factors=(3, 5),
            )
        ),
        "highresnet2d": lambda: SliceWise(HighResNet(in_channels=1, out_channels=2, spatial_dims=2, width=2)),
    }[kind]()
    return small.double().eval()


def one_pass(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The network once over the scan, padded with zeros to a size that it takes."""
    geometry, shape = network.geometry, image.shape[2:]
    sizes = geometry.input_size(tuple(shape))
    pads = [(m, size - n - m) for n, m, size in zip(shape, geometry.margin, sizes, strict=True)]
    with torch.no_grad():
        logits = network(F.pad(image, [side for pair in reversed(pads) for side in pair]))
    return logits[(slice(None), slice(None), *(slice(0, n) for n in shape))]


KINDS = ["unet", "pooled", "unet2d", "twopathcnn2d", "deepmedic2d", "two_paths2d", "highresnet2d"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, **RELAXED)
@given(data=st.data())
def test_tiles_and_boxes_are_one_pass(kind: str, data: st.DataObject) -> None:
    """Odd sizes, sizes below a tile and single slices; tiles as small as the network allows or twice that."""
    network = networks_of(kind)
    shape = data.draw(st.tuples(*[st.integers(1, 30)] * 2, st.integers(1, 6)) if kind != "pooled" else SIZES)
    box = []
    for n in shape:
        begin = data.draw(st.integers(0, n - 1))
        box.append((begin, data.draw(st.integers(begin + 1, n))))
    image = torch.randn(1, 1, *shape, dtype=torch.float64)
    expected = one_pass(network, image)
    least = torch.Size(network.geometry.minimum).numel()
    memory_gb = data.draw(st.sampled_from([1, 2])) * least * activation_bytes(network, 4) / 1e9
    batch = data.draw(st.sampled_from([1, 3]))
    for budget, tile_batch in ((memory_gb, batch), (None, 1)):
        inferer = DenseInferer(network.geometry, mode="exact", memory_gb=budget, tile_batch=tile_batch)
        torch.testing.assert_close(inferer(image, network).double(), expected, rtol=1e-5, atol=1e-5)
        part = inferer.inside(image[0], network, box).double()
        inner = expected[(0, slice(None), *(slice(*span) for span in box))]
        torch.testing.assert_close(part, inner, rtol=1e-5, atol=1e-5)


SIZES = st.tuples(*[st.integers(1, 40)] * 3)


def test_slices_are_cut_apart_before_anything_else() -> None:
    """No slice needs another, so tiles of a scan on slices are whole slices as long as one fits."""
    network = networks_of("highresnet2d")
    image = torch.randn(1, 1, 20, 16, 9, dtype=torch.float64)
    inferer = DenseInferer(network.geometry, memory_gb=2.5 * 20 * 16 * activation_bytes(network, 4) / 1e9)
    inferer(image, network)
    assert inferer.notes["tiles"] == 5  # two slices each


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_a_shifted_scan_gives_shifted_scores(shift: int) -> None:
    """HighResNet sees 43 voxels to either side: the scores of what lies deeper move with the scan, tiled or not."""
    torch.manual_seed(0)
    network = HighResNet(in_channels=1, out_channels=2, width=2).double().eval()
    image = torch.randn(1, 1, 130, 3, 2, dtype=torch.float64)
    inferer = DenseInferer(network.geometry, mode="exact", memory_gb=100 * 6 * activation_bytes(network, 4) / 1e9)
    here = inferer(image[:, :, : 130 - shift], network)
    there = inferer(image[:, :, shift:], network)
    assert inferer.notes["tiles"] > 1
    deep = slice(43 + shift, 130 - shift - 43)
    moved = slice(43, 130 - 2 * shift - 43)
    torch.testing.assert_close(there[:, :, moved], here[:, :, deep], rtol=1e-5, atol=1e-5)
    assert here[:, :, deep].shape[2] > 30
