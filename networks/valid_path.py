"""What DeepMedic's paths and joint layers are made of: valid convolutions with batch norm and PReLU.

Shapes: B samples; C channels; *spatial two or three axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rarevox.networks.blocks import CONVOLUTION, crop_faces
from rarevox.networks.cpu import ops
from rarevox.networks.norms import BATCH_NORM

RESIDUAL_LAYERS = (4, 6, 8)
"""The layers of a residual path, counted from 1, to whose output the input of the one before is added."""


class ValidUnit(nn.Module):
    """A valid convolution with batch norm and PReLU: after it, or before it with ``preactivation``."""

    def __init__(self, channels_in: int, channels: int, size: int, dims: int, preactivation: bool, bare: bool) -> None:
        super().__init__()
        normed = channels_in if preactivation else channels
        self.preactivation = preactivation
        self.conv = CONVOLUTION[dims](channels_in, channels, size, bias=False)
        # The scan itself is not normed: a pre-activated path begins with its convolution.
        self.norm = nn.Identity() if bare else BATCH_NORM[dims](normed)
        self.activation = nn.Identity() if bare else nn.PReLU(normed)

    @property
    def out_channels(self) -> int:
        """C'."""
        return int(self.conv.out_channels)

    def forward(
        self,
        x: torch.Tensor,
        out: torch.Tensor | None = None,
        add: torch.Tensor | None = None,
        widths: tuple[int, ...] = (),
        kept: ops.Kept | None = None,
    ) -> torch.Tensor:
        """(B, C, *spatial) to (B, C', *spatial − (size − 1)); in evaluation batch norm is folded into the weights.

        On a GPU in half precision channels of zeros may follow, in what comes in and in what comes out
        (`rarevox.networks.cuda.channels`).

        Args:
            x: the input.
            out: in evaluation without gradients, what the result is written to.
            add: (B, at most C', *spatial − (size − 1)), added to the first channels of the result.
            widths: channels of the parts that ``x`` was put together from, with their zeros; empty for one.
            kept: what an earlier call of the same pass folded.
        """
        if not self.preactivation:
            return ops.conv_norm_act(x, self.conv, self, out=out, add=add, wide=ops.Wide(widths), kept=kept)
        y = self.conv(self.activation(self.norm(x)))
        y = y if out is None else out.copy_(y)
        return y if add is None else ops.add_channels(y, add)


class ValidPath(nn.Module):
    """Eight (or as many as there are channels) valid 3³ convolutions at one resolution."""

    def __init__(
        self, in_channels: int, channels: Sequence[int], dims: int, residual: bool, preactivation: bool
    ) -> None:
        super().__init__()
        self.added = RESIDUAL_LAYERS if residual else ()
        sizes = (in_channels, *channels)
        self.layers = nn.ModuleList(
            ValidUnit(sizes[i], sizes[i + 1], 3, dims, preactivation, bare=preactivation and i == 0)
            for i in range(len(channels))
        )

    @property
    def units(self) -> list[ValidUnit]:
        """The layers one by one."""
        return [layer for layer in self.layers if isinstance(layer, ValidUnit)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) to (B, channels[-1], *spatial − 2 · layers)."""
        entry = x
        for number, layer in enumerate(self.layers, start=1):
            if number % 2 == 1:
                entry = x
            x = layer(x, add=crop_faces(entry, 2) if number in self.added else None)
        return x
