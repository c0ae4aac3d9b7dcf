"""The valid U-Net with two poolings of the GDL paper (Ronneberger et al. 2015, made shallower).

Shapes: B samples; C channels; *spatial two or three axes.
"""

from __future__ import annotations

import torch
from torch import nn

from rarevox.networks.blocks import (
    CONVOLUTION,
    MAX_POOL,
    TRANSPOSED,
    check_choice,
    check_input,
    check_options,
    crop_to,
    initialise,
)
from rarevox.networks.geometry import Geometry
from rarevox.networks.norms import BATCH_NORM
from rarevox.networks.recorded import Traced


class ValidUNet(Traced):
    """U-Net of valid convolutions with two poolings: 56 to 16, 64 to 24, 88 to 48.

    Two valid 3³ convolutions with ReLU at each of three levels (``width``, 2·``width``, 4·``width`` features) with
    maxima over 2³ voxels between them, then up again by transposed 2³ convolutions of stride 2, each joined with the
    centrally cropped features of its level; a 1³ convolution with bias to linear logits.

    Sizes: the input must be a multiple of 4 (else a pooling would cut a voxel off one face and shift the labels), at
    least 44; the output is 40 smaller. An output voxel sees 44 input voxels: 2·2 for each pair of convolutions in
    units of its level, and the pooling and up-sampling blocks that they touch.

    Args:
        in_channels: channels of the input.
        out_channels: classes, the background included.
        spatial_dims: 2 or 3.
        width: features of the first level; 64 in the original U-Net.
        norm: "none" as in the original, or "batch" between each convolution and its ReLU.
        dropout: probability that a feature of the lowest level is set to zero in training.

    Shapes: (B, in_channels, *spatial) to logits (B, out_channels, *(spatial − 40)).

    Raises:
        ValueError: an option out of its range; an input with other channels, axes or a size that does not fit.

    State dict: ``down1``, ``down2``, ``bottom``, ``up2``, ``up1`` (each a sequence with two convolutions), ``raise2``,
    ``raise1`` (the transposed convolutions), ``classifier``.

    Source: Ronneberger et al., "U-Net", MICCAI 2015; sizes from Sudre et al., DLMIA 2017, table 1.

    >>> network = ValidUNet(in_channels=3, out_channels=2, width=4)
    >>> network(torch.zeros(1, 3, 56, 64)).shape
    torch.Size([1, 2, 16, 24])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        width: int = 64,
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_options(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, dropout=dropout, width=width
        )
        check_choice("norm", norm, ("none", "batch"))
        self.in_channels = in_channels
        self.geometry = Geometry(receptive_field=(44,) * spatial_dims, margin=20, multiple=4, minimum=44)

        def pair(channels_in: int, channels: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for count in (channels_in, channels):
                layers.append(CONVOLUTION[spatial_dims](count, channels, 3, bias=norm == "none"))
                if norm == "batch":
                    layers.append(BATCH_NORM[spatial_dims](channels))
                layers.append(nn.ReLU(inplace=True))
            return nn.Sequential(*layers)

        self.down1 = pair(in_channels, width)
        self.down2 = pair(width, 2 * width)
        self.bottom = pair(2 * width, 4 * width)
        self.raise2 = TRANSPOSED[spatial_dims](4 * width, 2 * width, 2, stride=2)
        self.up2 = pair(4 * width, 2 * width)
        self.raise1 = TRANSPOSED[spatial_dims](2 * width, width, 2, stride=2)
        self.up1 = pair(2 * width, width)
        self.pool = MAX_POOL[spatial_dims](2)
        self.dropout = nn.Dropout(dropout)
        self.classifier = CONVOLUTION[spatial_dims](width, out_channels, 1)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, *(spatial − 40)) for ``x`` (B, in_channels, *spatial)."""
        check_input(x, self.in_channels, self.geometry)
        level1 = self.down1(x)
        level2 = self.down2(self.pool(level1))
        y = self.raise2(self.dropout(self.bottom(self.pool(level2))))
        y = self.up2(torch.cat([crop_to(level2, y.shape[2:]), y], dim=1))
        y = self.raise1(y)
        y = self.up1(torch.cat([crop_to(level1, y.shape[2:]), y], dim=1))
        return self.classifier(y)
