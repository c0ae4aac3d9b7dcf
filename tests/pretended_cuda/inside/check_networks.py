"""Every network on CUDA, in every precision, in training and in evaluation."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch

from rarevox import networks
from rarevox.pipeline.device import Precision, channels_last, place_network

CUDA = torch.device("cuda", 0)
IO = {"in_channels": 1, "out_channels": 3}
WIDE = {"residual": True, "wide": True, "dropout": 0.5, "low_resolution_factors": (3, 5)}
NETWORKS = {
    "HighResNet": (lambda: networks.HighResNet(**IO), (48, 48, 48)),
    "HighResNet, padded": (lambda: networks.HighResNet(**IO), (50, 47, 33)),
    "HighResNet, PReLU": (lambda: networks.HighResNet(**IO, activation="prelu"), (32, 32, 32)),
    "HighResNet, instance norm": (lambda: networks.HighResNet(**IO, norm="instance"), (32, 32, 32)),
    "HighResNet, checkpointing": (lambda: networks.HighResNet(**IO, checkpointing=True), (32, 32, 32)),
    "HighResNet, dilated": (lambda: networks.HighResNet(**IO, sub_lattices=False), (32, 32, 32)),
    "HighResNet, dropout": (lambda: networks.HighResNet(**IO, dropout=0.5), (32, 32, 32)),
    "HighResNet, slices": (lambda: networks.HighResNet(**IO, spatial_dims=2), (62, 61)),
    "DeepMedic": (lambda: networks.DeepMedic(**IO), (75, 75, 75)),
    "DeepMedic, residual": (lambda: networks.DeepMedic(**IO, residual=True), (75, 75, 75)),
    "DeepMedic, wide": (lambda: networks.DeepMedic(**IO, **WIDE), (110, 110, 110)),
    "DeepMedic, pre-activated": (lambda: networks.DeepMedic(**IO, preactivation=True), (75, 75, 75)),
    "DeepMedic, slices": (lambda: networks.DeepMedic(**IO, spatial_dims=2), (75, 75)),
    "TwoPathCNN": (lambda: networks.TwoPathCNN(**IO), (63, 63)),
    "ValidUNet": (lambda: networks.ValidUNet(**IO), (56, 64)),
    "ValidUNet, volumes": (lambda: networks.ValidUNet(**IO, spatial_dims=3, width=8, norm="batch"), (56, 56, 56)),
    "SliceWise": (lambda: networks.SliceWise(networks.HighResNet(**IO, spatial_dims=2)), (64, 64, 2)),
}
# Slices lie in the batch axis, and come back across the last; PyTorch's group norm puts the channels first on CUDA.
OTHERWISE = ("SliceWise", "HighResNet, instance norm")


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether the channels are innermost; of a crop too, whose rows lie apart."""
    return x.stride(1) == 1


# Whoever tells half precision from single does not tell its two types apart, which the test below holds.
PRECISIONS = [
    *itertools.product(NETWORKS, (torch.float32, torch.bfloat16)),
    *itertools.product(("HighResNet", "DeepMedic"), (torch.float16,)),
]


def test_networks_name_both_types_of_half_precision_or_none():
    for path in Path(networks.__path__[0]).rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        named = Counter(node.attr for node in tree if isinstance(node, ast.Attribute))
        assert named["bfloat16"] == named["float16"] and not named["half"], path


@pytest.mark.parametrize(("name", "dtype"), PRECISIONS, ids=lambda one: str(one).removeprefix("torch."))
def test_a_network_stays_on_its_device_in_its_layout_and_waits_for_nothing(ledger, name, dtype):
    make, size = NETWORKS[name]
    network, precision = place_network(make(), CUDA), Precision(CUDA, dtype)
    x = torch.empty(2, 1, *size, device=CUDA).contiguous(memory_format=channels_last(len(size)))
    ledger.clear()
    network.train()
    with precision.autocast():
        logits = network(x)
    assert logits.device == CUDA and logits.dtype == dtype
    logits.float().square().mean().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None and parameter.grad.device == CUDA
        shape = parameter.grad.shape
        assert parameter.ndim < 4 or parameter.grad.is_contiguous(memory_format=channels_last(len(shape) - 2))
    network.eval()
    with torch.no_grad(), precision.autocast():
        scores = network(x[:1])
    assert scores.device == CUDA and scores.shape[2:] == logits.shape[2:]
    if name not in OTHERWISE:
        assert is_channels_last(logits) and is_channels_last(scores)
    assert not ledger.waits and not ledger.pageable, ledger.report()
