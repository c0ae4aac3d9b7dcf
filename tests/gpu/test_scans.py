"""Whole scans on a device beside the same on the CPU, and a device whose memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.networks import DeepMedic, HighResNet
from rarevox.pipeline.device import Precision, place_network
from rarevox.pipeline.inference.dense import DenseInferer
from tests.bounds import network_bound

pytestmark = pytest.mark.gpu

NETWORKS = {
    "HighResNet": lambda: HighResNet(in_channels=1, out_channels=3, width=8),
    "DeepMedic": lambda: DeepMedic(in_channels=1, out_channels=3, residual=True),
}


def subject(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return NETWORKS[name]().eval(), torch.randn(1, 1, 61, 54, 47)


def indexed(device: str) -> torch.device:
    """A CUDA device by its number, as what limits its memory asks for it."""
    found = torch.device(device)
    return found if found.index is not None else torch.device(found.type, torch.cuda.current_device())


def clear_voxels(scores: torch.Tensor, image: torch.Tensor, bound: float) -> torch.Tensor:
    """Where the two best classes lie further apart than both sides' roundings, (1, *spatial)."""
    best = scores.topk(2, dim=1).values
    largest = max(float(image.abs().max()), float(scores.abs().max()))
    return best[:, 0] - best[:, 1] > 4 * bound * largest


def scanned(
    network: torch.nn.Module, image: torch.Tensor, device: str, dtype: torch.dtype, reduce: str
) -> torch.Tensor:
    where = torch.device(device)
    inferer = DenseInferer(network.geometry, precision=Precision(where, dtype), reduce=reduce)
    return torch.as_tensor(np.asarray(inferer(image, place_network(network, where))))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_labels_are_those_of_the_cpu(on, name, dtype) -> None:
    if on == "cpu" and dtype == torch.float16:
        pytest.skip("a precision of CUDA devices")
    network, image = subject(name)
    scores = scanned(network, image, "cpu", torch.float32, "scores").float()
    clear = clear_voxels(scores, image, network_bound(network, dtype))
    if dtype == torch.float32:
        assert clear.float().mean() > 0.25  # an untrained network decides little
    labels = scanned(network, image, on, dtype, "labels").reshape(clear.shape)
    assert torch.equal(labels[clear].long(), scores.argmax(1)[clear])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a device whose memory can be limited")
@pytest.mark.parametrize("name", NETWORKS)
def test_where_memory_runs_out_tiles_get_smaller(on, name) -> None:
    network, _ = subject(name)
    image = torch.randn(1, 1, 160, 160, 160)
    device = indexed(on)
    network = place_network(network, device)
    precision = Precision(device, torch.float32)
    expected = scanned(network, image, on, torch.float32, "labels")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    # Too little for two volumes of the most channels in float32 (32 in HighResNet: 0.52 GB each; 150 in DeepMedic), and
    # enough for three in the smallest tiles: a few voxels, and 43 around them in HighResNet.
    limit = {"HighResNet": 900e6, "DeepMedic": 400e6}[name]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated(device) + limit) / total, device)
    try:
        inferer = DenseInferer(
            network.geometry, precision=precision, memory_gb=20, reduce="labels"
        )  # more than there is
        found = inferer(image, network)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert inferer.notes["tiles"] > 1
    assert (np.asarray(found) == np.asarray(expected)).mean() > 0.999
