"""Whole scans on CUDA: one wait for the labels, few launches."""

from __future__ import annotations

import pytest
import torch

from rarevox import networks
from rarevox.pipeline.device import Precision, place_network
from rarevox.pipeline.inference import DenseInferer
from rarevox.pipeline.inference.tiling.stitch import CHUNK_VOXELS, class_indices

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
    assert dict(ledger.waits) == {("pipeline/inference/tiling/stitch.py:stitch", "copy to the host"): 1}, (
        ledger.report()
    )
    assert not ledger.pageable, ledger.report()
    assert dict(ledger.pinned) == {"pipeline/inference/tiling/sending.py:sent": 1}, ledger.report()


# Options of the inferer, the scan, passes of the network, launches beside them for each.
OTHERWISE = {
    "flips": ({"flips": [0, 1, 2]}, (96, 80, 64), 8, 12),
    "windows": ({"mode": "window", "window_size": (48, 48, 48), "window_batch": 4}, (96, 96, 72), 5, 60),
    "scores": ({"reduce": "scores"}, (96, 80, 64), 1, 12),
    "tiles": ({"memory_gb": 0.05}, (240, 48, 48), None, 20),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_mirror_images_windows_and_tiles_wait_once_too(ledger, name):
    options, shape, passes, beside = OTHERWISE[name]
    network = place_network(networks.HighResNet(in_channels=1, out_channels=3), CUDA).eval()
    precision = Precision(CUDA, torch.bfloat16)
    counted = []
    network.register_forward_hook(lambda *_: counted.append(ledger.total))
    network.register_forward_pre_hook(lambda *_: counted.append(ledger.total))
    inferer = DenseInferer(network.geometry, precision=precision, **{"reduce": "labels", **options})
    scan = torch.empty(1, 1, *shape)
    ledger.clear()
    found = inferer(scan, network)
    assert found.shape[2:] == shape and found.device.type == "cpu"
    begun, ended = counted[::2], counted[1::2]
    assert len(begun) == passes or (passes is None and len(begun) > 1)
    inside = sum(after - before for before, after in zip(begun, ended, strict=True))
    assert ledger.total - inside <= beside * len(begun), ledger.report()
    assert ledger.waits.total() == 1 and {what for _, what in ledger.waits} == {"copy to the host"}, ledger.report()
    assert not ledger.pageable, ledger.report()
    assert set(ledger.pinned) == {"pipeline/inference/tiling/sending.py:sent"}, ledger.report()
    assert ledger.pinned.total() == (2 if name == "windows" else 1)  # with the weights of a window


def test_a_scan_in_pinned_memory_is_sent_from_there(ledger, monkeypatch):
    network = place_network(networks.HighResNet(in_channels=1, out_channels=3), CUDA).eval()
    inferer = DenseInferer(network.geometry, precision=Precision(CUDA, torch.bfloat16), reduce="labels")
    scan = torch.empty(1, 1, 48, 48, 48).pin_memory()

    def refused(*_):
        raise AssertionError("the scan is in pinned memory already")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refused)
    ledger.clear()
    inferer(scan, network)
    assert ledger.pinned.total() == 1 and not ledger.pageable, ledger.report()


def test_classes_are_compared_in_large_parts(ledger):
    scores = torch.empty(3, 240, 240, 155, dtype=torch.bfloat16, device=CUDA)
    ledger.clear()
    assert class_indices(scores).shape == (1, 240, 240, 155)
    parts = -(-240 // (CHUNK_VOXELS // (240 * 155)))
    assert ledger.total == 3 * parts  # the largest, its type, its place


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
