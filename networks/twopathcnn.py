"""TwoPathCNN (Havaei et al. 2017): a local and a global path of valid maxout convolutions, joined by one wide layer.

Shapes: B samples; C channels; *spatial two or three axes.
"""

from __future__ import annotations

import torch
from torch import nn

from rarevox.networks.blocks import CONVOLUTION, MAX_POOL, WIDE_CONVOLUTION, check_input, check_options, initialise
from rarevox.networks.geometry import Geometry
from rarevox.networks.recorded import Traced


class _Maxout(nn.Module):
    """A valid convolution whose features are each the largest of ``pieces`` linear ones."""

    def __init__(self, channels_in: int, channels: int, size: int, spatial_dims: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.conv = CONVOLUTION[spatial_dims](channels_in, channels * pieces, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels_in, *spatial) to (B, channels, *spatial − (size − 1))."""
        return self.conv(x).unflatten(1, (-1, self.pieces)).amax(dim=2)


class TwoPathCNN(Traced):
    """TwoPathCNN: 33² voxels of context in a local and a global path; 51 to 19, 63 to 31, 85 to 53.

    Local path: 7² maxout convolution to 64 features, maxima over 4² with stride 1, 3² maxout convolution to 64,
    maxima over 2² with stride 1. Global path: 13² maxout convolution to 160. The two are concatenated and a 21²
    convolution with bias gives the linear logits. All convolutions are valid: 6 + 3 + 2 + 1 = 12 voxels are lost on
    either path and 20 in the joint layer, 32 in all.

    Args:
        in_channels: channels of the input.
        out_channels: classes, the background included.
        spatial_dims: 2 or 3 (with 3 axes the joint layer has 21³ weights for each pair of features and class).
        local_features: features of the two local layers.
        global_features: features of the global layer.
        pieces: linear features of which a maxout feature is the largest.
        dropout: probability that a feature is set to zero before the joint layer in training.

    Shapes: (B, in_channels, *spatial) to logits (B, out_channels, *(spatial − 32)).

    Raises:
        ValueError: an option out of its range; an input with other channels, axes or a size below 33.

    State dict: ``local1.conv``, ``local2.conv``, ``wide.conv``, ``classifier``.

    Source: Havaei et al., "Brain tumor segmentation with deep neural networks", Medical Image Analysis 35, 2017.

    >>> network = TwoPathCNN(in_channels=3, out_channels=2, local_features=4, global_features=6)
    >>> network(torch.zeros(1, 3, 51, 33)).shape
    torch.Size([1, 2, 19, 1])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        local_features: int = 64,
        global_features: int = 160,
        pieces: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_options(
            in_channels=in_channels,
            out_channels=out_channels,
            spatial_dims=spatial_dims,
            dropout=dropout,
            local_features=local_features,
            global_features=global_features,
            pieces=pieces,
        )
        self.in_channels = in_channels
        self.geometry = Geometry(receptive_field=(33,) * spatial_dims, margin=16)
        self.local1 = _Maxout(in_channels, local_features, 7, spatial_dims, pieces)
        self.pool1 = MAX_POOL[spatial_dims](4, stride=1)
        self.local2 = _Maxout(local_features, local_features, 3, spatial_dims, pieces)
        self.pool2 = MAX_POOL[spatial_dims](2, stride=1)
        self.wide = _Maxout(in_channels, global_features, 13, spatial_dims, pieces)
        self.dropout = nn.Dropout(dropout)
        self.classifier = WIDE_CONVOLUTION[spatial_dims](local_features + global_features, out_channels, 21)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, *(spatial − 32)) for ``x`` (B, in_channels, *spatial)."""
        check_input(x, self.in_channels, self.geometry)
        local = self.pool2(self.local2(self.pool1(self.local1(x))))
        return self.classifier(self.dropout(torch.cat([local, self.wide(x)], dim=1)))
