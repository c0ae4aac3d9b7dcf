"""2D networks on volumes: every slice across the last axis by itself.

Shapes: B samples; C channels; H, W the axes of a slice; S slices.
"""

from __future__ import annotations

import torch
from torch import nn

from rarevox.networks.geometry import Geometry, geometry_of
from rarevox.networks.recorded import Traced


class SliceWise(Traced):
    """A 2D network as one of three axes, which sees nothing along the last: a receptive field of 1 there.

    Samplers, loss crop, tiler and configuration treat it like any other network: a training patch is one slice (or
    several) of size [h, w, 1], and a whole scan goes through in batches of as many slices as memory allows.

    Args:
        network: with ``spatial_dims=2``.
        geometry: of the network, where it states none (networks from elsewhere).

    Shapes: (B, C, H, W, S) to logits (B, classes, H', W', S), H' × W' being what the network makes of H × W.

    Raises:
        ValueError: a network that does not have two axes, or that states no geometry; an input of other axes.

    State dict: the network's own entries, each after ``network.``.

    >>> from rarevox.networks import ValidUNet
    >>> network = SliceWise(ValidUNet(in_channels=1, out_channels=2, width=4))
    >>> network(torch.zeros(2, 1, 56, 64, 3)).shape
    torch.Size([2, 2, 16, 24, 3])
    >>> network.geometry.margin, network.geometry.receptive_field
    ((20, 20, 0), (44, 44, 1))
    """

    def __init__(self, network: nn.Module, geometry: Geometry | None = None) -> None:
        super().__init__()
        plane = geometry or geometry_of(network)
        if plane.spatial_dims != 2:
            raise ValueError(
                f"SliceWise takes a network of 2 axes, and {type(network).__name__} has {plane.spatial_dims}; "
                "build it with spatial_dims: 2"
            )
        self.network = network
        self.geometry = Geometry(
            receptive_field=(*plane.receptive_field, 1),
            margin=(*plane.margin, 0),
            multiple=(*plane.multiple, 1),
            base=(*plane.base, 0),
            minimum=(*plane.minimum, 1),
            preferred_multiple=(*plane.preferred_multiple, 1),
        )

    def peak_bytes(self, itemsize: int, reduced: bool = False) -> float | None:
        """What the network states; see `rarevox.networks.HighResNet.peak_bytes`."""
        stated = getattr(self.network, "peak_bytes", None)
        return None if stated is None else stated(itemsize, reduced)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes, H', W', S) for ``x`` (B, C, H, W, S)."""
        if x.ndim != 5:
            raise ValueError(
                f"a network on slices takes a batch with 5 axes (batch, channel, 2 in the slice, slices), "
                f"got shape {tuple(x.shape)}"
            )
        planes = x.permute(0, 4, 1, 2, 3).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.network(planes)
        return logits.unflatten(0, (x.shape[0], x.shape[4])).permute(0, 2, 3, 4, 1)
