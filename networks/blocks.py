"""The pieces that several networks share: layers by number of axes, crops, checks, initial weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from rarevox.compiled import is_exported
from rarevox.networks.cpu.ops import Conv3d, WideConv2d, WideConv3d
from rarevox.networks.geometry import Geometry
from rarevox.networks.recorded import check_recorded_size

CONVOLUTION = {2: nn.Conv2d, 3: Conv3d}
WIDE_CONVOLUTION = {2: WideConv2d, 3: WideConv3d}
"""For kernels that are wide and give few features."""
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def check_options(
    *, in_channels: int, out_channels: int, spatial_dims: int, dropout: float = 0.0, **counts: int
) -> None:
    """Check the options that all networks share; ``counts`` are further whole numbers of at least 1.

    Raises:
        ValueError: says which option, its value and what was expected.
    """
    if spatial_dims not in CONVOLUTION:
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
    for name, value in {"in_channels": in_channels, "out_channels": out_channels, **counts}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be a probability of at least 0 and below 1, got {dropout!r}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse an option that is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_input(x: torch.Tensor, in_channels: int, geometry: Geometry) -> None:
    """Refuse an input that the network cannot take.

    Args:
        x: what came in; (B, in_channels, *spatial) is expected.
        in_channels: the number of channels that the network was built for.
        geometry: the network's geometry.

    Raises:
        ValueError: wrong number of axes, of channels, or a size that does not fit.
    """
    dims = geometry.spatial_dims
    if x.ndim != dims + 2:
        raise ValueError(
            f"a network with spatial_dims={dims} takes a batch with {dims + 2} axes (batch, channel, {dims} spatial), "
            f"got shape {tuple(x.shape)}"
        )
    if is_exported(x):  # of the channels the first convolution sees to
        check_recorded_size(x, geometry)
        return
    if x.shape[1] != in_channels:
        raise ValueError(
            f"the network was built for in_channels={in_channels} and got {x.shape[1]} (shape {tuple(x.shape)}); "
            "give it the channels it was trained with, or build it with that number"
        )
    geometry.check(tuple(x.shape[2:]))


def crop_faces(x: torch.Tensor, voxels: int) -> torch.Tensor:
    """A view of ``x`` (B, C, *spatial) without ``voxels`` voxels at each face.

    >>> crop_faces(torch.zeros(1, 2, 7, 9), 2).shape
    torch.Size([1, 2, 3, 5])
    """
    for axis in range(2, x.ndim):
        x = x.narrow(axis, voxels, x.shape[axis] - 2 * voxels)
    return x


def crop_to(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The central part of ``x`` (B, C, *spatial) with the spatial ``size``, as a view.

    >>> crop_to(torch.arange(6.0).reshape(1, 1, 1, 6), (1, 2)).flatten().tolist()
    [2.0, 3.0]
    """
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def unreduced(logits: torch.Tensor) -> torch.Tensor:
    """The logits themselves, as a `Reduction`."""
    return logits


def initialise(network: nn.Module) -> None:
    """He-normal weights (fan-in, gain √2) for every convolution, zero biases (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, _ConvNd):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
