"""Scans through CUDA graphs beside the same without: labels, sizes that come again, memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rarevox.pipeline.device import Precision, place_network
from rarevox.pipeline.inference.dense import DenseInferer
from tests.gpu.test_scans import NETWORKS, indexed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHAPES = ((64, 56, 48), (48, 64, 40), (64, 56, 48), (48, 64, 40), (64, 56, 48))
WAYS = {
    "whole": {},
    "tiles": {"memory_gb": 0.05},
    "batches of tiles": {"memory_gb": 0.1, "tile_batch": 2},
    "flips": {"flips": [0, 1]},
    "scores": {"reduce": "scores"},
}


def inferers(network: torch.nn.Module, device: torch.device, dtype: torch.dtype, **options) -> list[DenseInferer]:
    """Without graphs, and with."""
    options = {"reduce": "labels", **options}
    precision = Precision(device, dtype)
    return [DenseInferer(network.geometry, precision=precision, cuda_graphs=graphs, **options) for graphs in (0, 1)]


def prepared(name: str, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    return place_network(NETWORKS[name]().eval(), device)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_labels_are_those_without_graphs(on, name, way) -> None:
    """cuDNN's algorithms are deterministic here, and a graph launches what was launched: the same to the bit."""
    device = torch.device(on)
    network = prepared(name, device)
    plain, graphed = inferers(network, device, torch.bfloat16, **WAYS[way])
    for number, shape in enumerate(SHAPES):
        scan = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(number))
        expected, found = plain(scan, network), graphed(scan, network)
        assert np.array_equal(np.asarray(found), np.asarray(expected)), (shape, number)
    assert graphed.graphs is not None and len(graphed.graphs) > 0 and not graphed.graphs.failed


def test_weights_that_are_trained_between_two_scans_are_seen(on) -> None:
    device = torch.device(on)
    network = prepared("HighResNet", device)
    plain, graphed = inferers(network, device, torch.float32)
    scan = torch.randn(1, 1, 48, 48, 48)
    for _ in range(3):
        graphed(scan, network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    assert np.array_equal(np.asarray(graphed(scan, network)), np.asarray(plain(scan, network)))


def test_graphs_give_their_memory_back_where_it_runs_out(on) -> None:
    device = indexed(on)
    network = prepared("HighResNet", device)
    _, graphed = inferers(network, device, torch.float32)
    for _ in range(3):
        graphed(torch.randn(1, 1, 96, 96, 96), network)
    assert graphed.graphs is not None and len(graphed.graphs) == 1
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved(device) + 200e6
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    try:
        larger = torch.randn(1, 1, 128, 128, 128)
        found = graphed(larger, network)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    plain, _ = inferers(network, device, torch.float32)
    assert (np.asarray(found) == np.asarray(plain(larger, network))).mean() > 0.999


def test_a_pass_that_waits_is_told_and_goes_through_without(on, capsys) -> None:
    device = torch.device(on)
    network = prepared("HighResNet", device)
    network.register_forward_hook(lambda module, inputs, output: (output.sum().item(), None)[1])
    plain, graphed = inferers(network, device, torch.float32)
    scan = torch.randn(1, 1, 40, 40, 40)
    for _ in range(3):
        assert np.array_equal(np.asarray(graphed(scan, network)), np.asarray(plain(scan, network)))
    assert graphed.graphs is not None and graphed.graphs.failed
    assert "".join(capsys.readouterr()).count("no CUDA graphs from here on") == 1
