from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from networks import DeepMedic, Geometry, HighResNet
from pipeline.device import Precision
from pipeline.errors import RequestError
from pipeline.inference.dense import DenseInferer, activation_bytes


def deepmedic() -> DeepMedic:
    torch.manual_seed(0)
    return DeepMedic(in_channels=2, out_channels=3, channels=(3,) * 8, joint=(4, 4)).double().eval()


def highresnet() -> HighResNet:
    torch.manual_seed(0)
    return HighResNet(in_channels=2, out_channels=3, width=2).double().eval()


def budget_for(network: torch.nn.Module, voxels: int) -> float:
    """The memory_gb that allows blocks of ``voxels``."""
    return voxels * activation_bytes(network, 4) / 1e9


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=st.tuples(*[st.integers(1, 40)] * 3), voxels=st.integers(52**3, 70**3))
def test_valid_networks_are_stitched_to_the_single_pass(shape: tuple[int, int, int], voxels: int) -> None:
    network = deepmedic()
    image = torch.randn(1, 2, *shape, dtype=torch.float64)
    tiled = DenseInferer(network.geometry, memory_gb=budget_for(network, voxels))(image, network)
    sizes = network.geometry.input_size(shape)
    pad = [s for n, total in reversed(list(zip(shape, sizes, strict=True))) for s in (24, total - n - 24)]
    with torch.inference_mode():
        single = network(torch.nn.functional.pad(image, pad))[..., : shape[0], : shape[1], : shape[2]]
    assert tiled.shape == single.shape
    assert torch.allclose(tiled.double(), single, atol=1e-5)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=st.tuples(st.integers(90, 110), st.integers(1, 9), st.integers(1, 7)))
def test_size_keeping_networks_are_stitched_to_the_single_pass(shape: tuple[int, int, int]) -> None:
    network = highresnet()
    image = torch.randn(1, 2, *shape, dtype=torch.float64)
    inferer = DenseInferer(network.geometry, mode="exact", memory_gb=budget_for(network, shape[1] * shape[2] * 100))
    tiled = inferer(image, network)
    with torch.inference_mode():
        assert torch.allclose(tiled.double(), network(image), atol=1e-5)


def test_several_tiles_were_really_used() -> None:
    network = highresnet()
    inferer = DenseInferer(network.geometry, mode="exact", memory_gb=budget_for(network, 92 * 4 * 4))
    inferer(torch.randn(1, 2, 120, 4, 4, dtype=torch.float64), network)
    assert inferer.notes["tiles"] > 1


def test_labels_are_the_argmax_of_the_scores() -> None:
    network = deepmedic()
    image = torch.randn(2, 2, 9, 7, 5, dtype=torch.float64)
    scores = DenseInferer(network.geometry)(image, network)
    labels = DenseInferer(network.geometry, reduce="labels")(image, network)
    assert labels.dtype == torch.uint8
    assert labels.shape == (2, 1, 9, 7, 5)
    assert torch.equal(labels[:, 0].long(), scores.argmax(1))


def test_flips_average_the_probabilities_of_all_mirror_images() -> None:
    network = deepmedic()
    image = torch.randn(1, 2, 6, 6, 6, dtype=torch.float64)
    plain = DenseInferer(network.geometry)
    parts = [
        plain(image.flip(dims) if dims else image, network).softmax(1).flip(dims)
        if dims
        else plain(image, network).softmax(1)
        for dims in ([], [2], [4], [2, 4])
    ]
    found = DenseInferer(network.geometry, flips=(0, 2))(image, network)
    assert torch.allclose(found, torch.stack(parts).mean(0), atol=1e-6)


def test_a_network_with_mirror_symmetry_is_unchanged_by_flips() -> None:
    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, -x], 1)

    image = torch.randn(1, 1, 5, 6, 7)
    found = DenseInferer(Geometry(receptive_field=(1, 1, 1)), flips=(0, 1, 2))(image, Identity())
    assert torch.allclose(found, torch.cat([image, -image], 1).softmax(1), atol=1e-6)


def test_networks_that_need_multiples_see_zeros_at_the_far_faces() -> None:
    class Halving(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert all(n % 4 == 0 for n in x.shape[2:])
            return torch.nn.functional.interpolate(torch.nn.functional.avg_pool3d(x, 4), scale_factor=4)

    geometry = Geometry(receptive_field=(7, 7, 7), multiple=4)
    image = torch.randn(1, 1, 10, 9, 5)
    found = DenseInferer(geometry)(image, Halving())
    padded = torch.nn.functional.pad(image, (0, 3, 0, 3, 0, 2))
    assert torch.allclose(found, Halving()(padded)[..., :10, :9, :5])
    tiled = DenseInferer(geometry, mode="exact", memory_gb=2e-9 * 12 * 8 * 8)(image, Halving())
    assert torch.allclose(tiled, found)


def test_windows_reproduce_a_pointwise_network() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    image = torch.randn(1, 1, 13, 11, 9)
    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), mode="window", window_size=(8, 8, 8))
    assert torch.allclose(inferer(image, network), network(image), atol=1e-5)


def test_the_affine_goes_through() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    image = MetaTensor(torch.randn(1, 1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    assert torch.equal(DenseInferer(Geometry(receptive_field=(1, 1, 1)))(image, network).affine, image.affine)


def test_out_of_memory_steps_down_and_says_so() -> None:
    class Greedy(torch.nn.Conv3d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x[0, 0].numel() > 200:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    network = Greedy(1, 2, 1)
    image = torch.randn(1, 1, 10, 10, 10)
    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)))
    expected = torch.nn.Conv3d.forward(network, image)
    assert torch.allclose(inferer(image, network), expected, atol=1e-6)
    assert inferer.notes["out_of_memory_retries"] >= 1


@pytest.mark.parametrize("options", [{"mode": "dense"}, {"reduce": "mean"}, {"mode": "window"}])
def test_wrong_options(options: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        DenseInferer(Geometry(receptive_field=(1, 1, 1)), **options)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    network = HighResNet(in_channels=1, out_channels=3, width=4).eval()
    image = torch.randn(1, 1, 40, 37, 31)
    expected = DenseInferer(network.geometry)(image, network)
    device = torch.device("cuda")
    network = network.to(device)
    found = DenseInferer(network.geometry, precision=Precision(device, torch.float32))(image, network)
    assert np.allclose(found, expected, atol=2e-3)
    low = DenseInferer(network.geometry, precision=Precision(device, torch.bfloat16))(image, network)
    assert (low.argmax(1) == expected.argmax(1)).float().mean() > 0.97
