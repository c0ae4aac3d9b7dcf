"""Weights of MONAI's HighResNet for `rarevox.networks.HighResNet`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from rarevox.networks.highresnet import HighResNet

_RULES = (
    (r"blocks\.0\.conv\.(.*)", "stem.conv.{0}"),
    (r"blocks\.0\.adn\.N\.(.*)", "stem.norm.norm.{0}"),
    (r"blocks\.0\.adn\.A\.(.*)", "stem.norm.activation.{0}"),
    (r"blocks\.([1-9])\.layers\.([02])\.N\.(.*)", "stages.{stage}.{block}.norm{half}.norm.{2}"),
    (r"blocks\.([1-9])\.layers\.([02])\.A\.(.*)", "stages.{stage}.{block}.norm{half}.activation.{2}"),
    (r"blocks\.([1-9])\.layers\.([13])\.conv\.(.*)", "stages.{stage}.{block}.conv{half}.{2}"),
    (r"blocks\.10\.conv\.(.*)", "features.conv.{0}"),
    (r"blocks\.10\.adn\.N\.(.*)", "features.norm.norm.{0}"),
    (r"blocks\.10\.adn\.A\.(.*)", "features.norm.activation.{0}"),
    (r"blocks\.11\.conv\.(.*)", "classifier.{0}"),
)
# MONAI passes its logits through a norm and an activation of their own, which a network with linear logits lacks.
_DROPPED = re.compile(r"blocks\.11\.adn\..*")


def from_monai(
    state_dict: Mapping[str, torch.Tensor], *, out_channels: int | None = None, dropout: float = 0.0
) -> HighResNet:
    """A `HighResNet` with the weights of ``monai.networks.nets.HighResNet``.

    Equal up to and with the 80 features before the last layer. The last convolution is taken over too, but not the
    batch norm and the ReLU that MONAI puts behind it: its output becomes the logits, to be trained on.

    Args:
        state_dict: of MONAI's HighResNet with its default layers or others of one width w (w, 2w, 4w, 5w), batch
            norm, ReLU or PReLU, padded identities and no biases, 2D or 3D.
        out_channels: classes, if they differ from those in ``state_dict``: the last layer then starts afresh.
        dropout: as in `HighResNet`.

    Raises:
        ValueError: the weights are of another architecture; the message names the first key that differs.

    >>> from monai.networks.nets import HighResNet as MonaiHighResNet
    >>> network = from_monai(MonaiHighResNet(spatial_dims=2, in_channels=1, out_channels=3).state_dict())
    >>> network(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 3, 8, 8])
    """
    weights = {_renamed(key): value for key, value in state_dict.items() if not _DROPPED.fullmatch(key)}
    for key in ("stem.conv.weight", "classifier.weight"):
        if key not in weights:
            raise ValueError(f"these are no weights of MONAI's HighResNet with its 12 layers: {key} has no counterpart")
    stem, last = weights["stem.conv.weight"], weights["classifier.weight"]
    network = HighResNet(
        in_channels=stem.shape[1],
        out_channels=out_channels or last.shape[0],
        spatial_dims=stem.ndim - 2,
        width=stem.shape[0],
        activation="prelu" if "stem.norm.activation.weight" in weights else "relu",
        dropout=dropout,
    )
    own = network.state_dict()
    if out_channels not in (None, last.shape[0]):
        weights["classifier.weight"] = own["classifier.weight"]
    for key, value in own.items():
        given = weights.get(key)
        if given is not None and key.endswith("activation.weight") and given.numel() == 1:
            weights[key] = given = given.expand_as(value).clone()  # MONAI's PReLU has one slope for all channels
        if given is None or given.shape != value.shape:
            found = "is missing" if given is None else f"has shape {tuple(given.shape)}"
            raise ValueError(f"weights of another architecture: {key} {found}, expected shape {tuple(value.shape)}")
    extra = next((key for key in weights if key not in own), None)
    if extra is not None:
        raise ValueError(f"weights of another architecture: {extra} has no counterpart in HighResNet")
    network.load_state_dict(weights)
    return network


def _renamed(key: str) -> str:
    """Our name of an entry of MONAI's state dict."""
    for pattern, name in _RULES:
        match = re.fullmatch(pattern, key)
        if match is None:
            continue
        groups = match.groups()
        if "{stage}" not in name:
            return name.format(*groups)
        stage, block = divmod(int(groups[0]) - 1, 3)
        return name.format(*groups, stage=stage, block=block, half=1 + int(groups[1]) // 2)
    raise ValueError(
        f"{key!r} is no entry of MONAI's HighResNet with its 12 layers, padded identities and no biases; "
        "give the state dict of such a network"
    )
