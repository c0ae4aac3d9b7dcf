"""Whole scans on CUDA: one wait for the labels, few launches."""

from __future__ import annotations

import pytest
import torch

from rarevox import networks
from rarevox.pipeline.device import Precision, place_network
from rarevox.pipeline.inference import DenseInferer

# What a scan of 240×240×155 takes, a twentieth left to PyTorch, whose operations change from release to release.
MOST = {"HighResNet": 240, "DeepMedic": 245}
MOVED_GB = {"HighResNet": 65, "DeepMedic": 42}  # in bfloat16
CUDA = torch.device("cuda", 0)
NETWORKS = {"HighResNet": networks.HighResNet, "DeepMedic": networks.DeepMedic}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_scan_takes_few_launches_and_one_wait(ledger, name, dtype):
    network = place_network(NETWORKS[name](in_channels=1, out_channels=3), CUDA).eval()
    inferer = DenseInferer(network.geometry, precision=Precision(CUDA, dtype), reduce="labels")
    scan = torch.empty(1, 1, 240, 240, 155)
    ledger.clear()
    labels = inferer(scan, network)
    assert labels.shape == scan.shape and labels.dtype == torch.uint8 and labels.device.type == "cpu"
    assert inferer.notes == {"tiles": 1}
    assert ledger.total <= MOST[name], ledger.report()
    assert ledger.moved <= MOVED_GB[name] * 1e9 * dtype.itemsize / 2, ledger.moved
    assert ledger.launches["triton affine_act_kernel"] >= 20, ledger.report()
    assert dict(ledger.waits) == {("pipeline/inference/stitch.py:stitch", "copy to the host"): 1}, ledger.report()
    assert not ledger.pageable, ledger.report()


def test_with_little_memory_a_scan_goes_through_in_pieces(ledger, monkeypatch):
    network = place_network(networks.HighResNet(in_channels=1, out_channels=3), CUDA).eval()
    scan = torch.empty(1, 1, 96, 96, 96, device=CUDA)
    counts = []
    for free in (78 * 2**30, 2**30):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_, free=free: (free, 80 * 2**30))
        ledger.clear()
        with torch.no_grad():
            assert network(scan).shape == (1, 3, 96, 96, 96)
        counts.append(ledger.total)
    assert counts[0] < 250 < counts[1]
