"""Weights of MONAI's HighResNet: the same features, and clear words for other weights."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import HighResNet as MonaiHighResNet
from torch import nn

from rarevox.networks import from_monai

LAYERS_NARROW = (
    {"name": "conv_0", "n_features": 4, "kernel_size": 3},
    *({"name": f"res_{d}", "n_features": 4 * d, "kernels": (3, 3), "repeat": 3} for d in (1, 2, 4)),
    {"name": "conv_1", "n_features": 20, "kernel_size": 1},
    {"name": "conv_2", "kernel_size": 1},
)


def _peer(dims: int = 3, **options: object) -> nn.Module:
    torch.manual_seed(0)
    peer = MonaiHighResNet(**{"spatial_dims": dims, "in_channels": 2, "out_channels": 3, **options})
    for name, tensor in peer.state_dict().items():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) * 0.5 + (-0.25 if name.endswith(("bias", "mean")) else 0.6))
    return peer.double().eval()


@pytest.mark.parametrize(
    ("dims", "options"),
    [(3, {}), (2, {}), (2, {"acti_type": "prelu"}), (3, {"layer_params": LAYERS_NARROW})],
)
@pytest.mark.parametrize("size", [(8, 12, 8), (5, 6, 7)])
def test_features_are_equal(dims: int, options: dict, size: tuple[int, ...]) -> None:
    peer = _peer(dims, **options)
    network = from_monai(peer.state_dict()).double().eval()
    x = torch.randn(2, 2, *size[:dims], dtype=torch.float64)
    with torch.no_grad():
        expected = peer.blocks[:10](x)
        torch.testing.assert_close(network.extract_features(x), expected, rtol=1e-9, atol=1e-9)
        last = peer.blocks[11].conv(peer.blocks[10](expected))
        torch.testing.assert_close(network(x), last, rtol=1e-9, atol=1e-9)


def test_other_classes_begin_a_new_last_layer() -> None:
    peer = _peer(2)
    network = from_monai(peer.state_dict(), out_channels=7)
    assert network.classifier.weight.shape[0] == 7
    assert network.stem.conv.weight.double().equal(peer.blocks[0].conv.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.3.layers.1.conv.weight"), r"stages\.0\.2\.conv1\.weight is missing"),
        (lambda s: s.pop("blocks.0.conv.weight"), r"stem\.conv\.weight has no counterpart"),
        (lambda s: s.update({"decoder.weight": torch.zeros(1)}), "'decoder.weight' is no entry of MONAI's HighResNet"),
        (
            lambda s: s.update({"blocks.5.layers.1.conv.weight": torch.zeros(8, 8, 3, 3)}),
            r"stages\.1\.1\.conv1\.weight has shape \(8, 8, 3, 3\), expected shape \(32, 32, 3, 3\)",
        ),
    ],
)
def test_other_weights_are_refused_by_name(change: object, message: str) -> None:
    state = dict(_peer(2).state_dict())
    change(state)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        from_monai(state)


def test_biases_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stem\.conv\.bias has no counterpart"):
        from_monai(_peer(2, bias=True).state_dict())
