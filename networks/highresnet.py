"""HighRes3DNet (Li et al. 2017): dilated residual blocks that keep full resolution from the scan to the labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import nn

from rarevox.networks.blocks import (
    CONVOLUTION,
    Reduction,
    check_choice,
    check_input,
    check_options,
    initialise,
    unreduced,
)
from rarevox.networks.cpu.ops import Spare
from rarevox.networks.cpu.pointwise import chain as pointwise
from rarevox.networks.cpu.winograd import convolution as winograd
from rarevox.networks.geometry import Geometry
from rarevox.networks.lattices.deal import (
    Padding,
    crop,
    from_lattices,
    lattice,
    pad_to_multiple,
    some_lattices,
    to_lattices,
)
from rarevox.networks.norms import BATCH_NORM
from rarevox.networks.recompute import recomputed
from rarevox.networks.residual import ConvNorm, DilatedBlock, Layout

DILATIONS = (1, 2, 4)
PERIOD = 4
# Sub-lattices of dilation 4 then have sizes divisible by 4, as the tiles of `rarevox.networks.cpu.winograd.convolution`
# do.
FAST_MULTIPLE = 16
# In evaluation the sub-lattices pass through the dilated stages in pieces of about so many voxels, and of one sub-
# lattice at least: a tensor of 64 channels is then 64 MiB in float32, and a convolution has work enough for any device.
PIECE_VOXELS = 2**18


class HighResNet(nn.Module):
    """HighRes3DNet: 20 convolutions and a 1³ classifier at full resolution, receptive field 87 voxels.

    A 3³ convolution to ``width`` channels; three residual blocks of two 3³ convolutions with ``width`` channels, three
    with 2·``width`` and dilation 2, three with 4·``width`` and dilation 4; a 1³ convolution to 5·``width``, dropout;
    a 1³ convolution to the classes. Every block is (norm → activation → convolution) twice plus the identity, zero-
    padded half before and half after where the channels grow. No convolution has a bias, and the logits are linear. For
    one input channel and C classes the convolutions have 807,344 + 80·C weights.

    The dilated stages run as plain convolutions on interleaved sub-lattices (see `rarevox.networks.lattices.deal`),
    with the same result. In evaluation without gradients these pass one after another, so that a whole scan needs
    little memory.

    Args:
        in_channels: channels of the input.
        out_channels: classes, the background included.
        spatial_dims: 2 or 3.
        width: channels of the first stage; 16 in the paper, fewer for a narrow and more for a wide network.
        activation: "relu", or "prelu" with a slope for each channel.
        norm: "batch" (momentum 0.1, ε 1e-5), or "instance" for batches of one.
        dropout: probability that a feature of the 1³ layer is set to zero in training.
        checkpointing: keep only the input of each block in training and compute the rest again in the backward
            pass: a third more time for a fraction of the memory.
        sub_lattices: False runs dilated convolutions as such.

    Shapes: (B, in_channels, *spatial) to logits (B, out_channels, *spatial); any size. Sizes divisible by 4 run
    fast, by 16 fastest.

    Raises:
        ValueError: an option out of its range; an input with other channels or axes.

    Attributes:
        geometry: sizes and the receptive field.
        float32_kernels: the compiled float32 kernels do most of its work on the CPU (three axes, width 8 or more).

    State dict: ``stem.conv``, ``stem.norm``; ``stages.S.B`` (stage S, block B, each from 0) with ``norm1``, ``conv1``,
    ``norm2``, ``conv2``; ``features.conv``, ``features.norm``; ``classifier``. Each norm holds ``norm.weight``,
    ``norm.bias``, the running statistics of batch norm, and ``activation.weight`` with PReLU.

    Source: Li et al., "On the compactness, efficiency, and representation of 3D convolutional networks: brain
    parcellation as a pretext task", IPMI 2017.

    >>> network = HighResNet(in_channels=2, out_channels=3, spatial_dims=2, width=4)
    >>> network(torch.zeros(1, 2, 12, 10)).shape
    torch.Size([1, 3, 12, 10])
    >>> network.geometry.receptive_field
    (87, 87)
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 3,
        width: int = 16,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        checkpointing: bool = False,
        sub_lattices: bool = True,
    ) -> None:
        super().__init__()
        check_options(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, dropout=dropout, width=width
        )
        check_choice("activation", activation, ("relu", "prelu"))
        check_choice("norm", norm, ("batch", "instance"))
        self.in_channels = in_channels
        self.checkpointing = checkpointing
        self.sub_lattices = sub_lattices
        self.float32_kernels = spatial_dims == 3 and 2 * width >= winograd.PANEL
        self.geometry = Geometry(receptive_field=(87,) * spatial_dims, preferred_multiple=FAST_MULTIPLE)

        def unit(channels_in: int, channels: int, size: int) -> ConvNorm:
            return ConvNorm(channels_in, channels, size, spatial_dims, norm, activation)

        def stage(channels_in: int, channels: int, dilation: int) -> nn.ModuleList:
            sizes = (channels_in, channels, channels)
            return nn.ModuleList(DilatedBlock(c, channels, spatial_dims, dilation, norm, activation) for c in sizes)

        self._peak_channels = 3 * width + in_channels
        self.stem = unit(in_channels, width, 3)
        widths = (width, *(width * dilation for dilation in DILATIONS))
        self.stages = nn.ModuleList(stage(a, b, d) for a, b, d in zip(widths, widths[1:], DILATIONS, strict=False))
        self.features = unit(widths[-1], 5 * width, 1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = CONVOLUTION[spatial_dims](5 * width, out_channels, 1, bias=False)
        initialise(self)

    def forward(self, x: torch.Tensor, reduce: Reduction = unreduced) -> torch.Tensor:
        """Logits (B, out_channels, *spatial) for ``x`` (B, in_channels, *spatial), or what ``reduce`` makes of them.

        ``reduce`` takes logits (B', out_channels, *piece) to (B', C', *piece) voxel by voxel. Where a scan goes through
        in pieces it is applied to each, so that the logits of the scan are never held together.
        """
        check_input(x, self.in_channels, self.geometry)
        if not self._runs_on_lattices(x):
            return reduce(self._head(self.extract_features(x), Layout(x.shape[0])))
        layout = Layout(x.shape[0])
        at_once = self._at_once(x)
        x = self._stage(0, self.stem(x, layout), layout, None if at_once else Spare())
        layout = Layout(x.shape[0], padding=Padding.of(x, PERIOD)).dealt(2)
        if not at_once:
            return self._in_pieces(x, layout, reduce)
        size = x.shape[2:]
        x = self._stage(1, to_lattices(pad_to_multiple(x, PERIOD), 2), layout)
        layout = layout.dealt(2)
        logits = from_lattices(self._head(self._stage(2, to_lattices(x, 2), layout), layout), (2, 2))
        return reduce(crop(logits, size))

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """The residual stream after the last block, (B, 4 · width, *spatial), in the order of the scan."""
        check_input(x, self.in_channels, self.geometry)
        layout = Layout(x.shape[0])
        x = self.stem(x, layout)
        for index in range(len(DILATIONS)):
            x = self._stage(index, x, layout)
        return x

    def _at_once(self, x: torch.Tensor) -> bool:
        """Whether all sub-lattices go through together: always where statistics or gradients need them all."""
        return self.training or torch.is_grad_enabled() or not self._plain or x[:, 0].numel() <= PIECE_VOXELS

    def _in_pieces(self, x: torch.Tensor, layout: Layout, reduce: Reduction) -> torch.Tensor:
        """Reduced logits for what comes from the undilated stage, a few sub-lattices at a time.

        Sub-lattices never meet, so the whole scan costs the memory of the undilated stage and of one piece.
        """

        spare = Spare()

        def coarse(x: torch.Tensor, layout: Layout) -> torch.Tensor:
            return reduce(self._head(self._stage(2, x, layout, spare), layout))

        def fine(x: torch.Tensor, layout: Layout) -> torch.Tensor:
            return _by_lattices(coarse, self._stage(1, x, layout, spare), layout.dealt(2), 2)

        return _by_lattices(fine, x, layout, PERIOD)

    def _stage(self, index: int, x: torch.Tensor, layout: Layout, spare: Spare | None = None) -> torch.Tensor:
        """The three blocks of one dilation; with ``spare`` memory ``x`` may be overwritten."""
        recompute = self.checkpointing and self.training and torch.is_grad_enabled()
        blocks = self.stages[index]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = recomputed(block, x, layout) if recompute else block(x, layout, spare, f"stage {index}")
        return x

    def _head(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The 1³ layers: features, dropout, linear logits."""
        if not self.training and pointwise.applies(x):
            features = pointwise.layer_of(self.features.conv, self.features.norm.norm, self.features.norm.activation)
            if features is not None:  # what it puts into the padding is cropped away
                return pointwise.chain(x, [features, pointwise.linear(self.classifier)])
        return self.classifier(self.dropout(self.features(x, layout)))

    def peak_bytes(self, itemsize: int, reduced: bool = False) -> float | None:
        """Memory that a pass in evaluation takes for each voxel of the scan; None where it is not done in pieces.

        The undilated stage decides: three tensors of its width, the scan and the logits. Measured with 16 channels, on
        240×240×155 voxels in float32: 190 bytes, and 170 without the logits, where this gives 220 and 200.

        Args:
            itemsize: bytes of a number.
            reduced: the logits are reduced a piece at a time (``reduce``).
        """
        if not (self.sub_lattices and self._plain):
            return None
        return float(itemsize * (self._peak_channels + (0 if reduced else self.classifier.out_channels)))

    @property
    def _plain(self) -> bool:
        """Whether every norm is the plain batch norm, in evaluation one affine map for each voxel."""
        return type(self.stem.norm.norm) in BATCH_NORM.values()

    def _runs_on_lattices(self, x: torch.Tensor) -> bool:
        """Whether sub-lattices give the same result and are worth their padding."""
        size = x.shape[2:]
        if all(length % PERIOD == 0 for length in size):
            return self.sub_lattices
        # Statistics that leave the padding out exist for the plain batch norm alone.
        padded = math.prod(length + (-length) % PERIOD for length in size)
        return self.sub_lattices and self._plain and padded <= 1.5 * math.prod(size)


def _by_lattices(
    function: Callable[[torch.Tensor, Layout], torch.Tensor], x: torch.Tensor, layout: Layout, multiple: int
) -> torch.Tensor:
    """``function`` of the sub-lattices of dilation 2 of ``x``, a few at a time, put together again.

    Args:
        function: of (some sub-lattices, their layout), (B', C, *spatial) to (B', C', *spatial).
        x: (B, C, *spatial).
        layout: of all sub-lattices of ``x``, padded to ``multiple``.
        multiple: what the sizes are padded to, in ``x``.

    Returns:
        (B, C', *spatial).
    """
    batch, dims = x.shape[0], x.ndim - 2
    offsets = list(itertools.product((0, 1), repeat=dims))
    voxels = math.prod(-(-length // multiple) * multiple // 2 for length in x.shape[2:])
    rows = max(1, PIECE_VOXELS // voxels)
    result: torch.Tensor | None = None
    for start in range(0, batch * len(offsets), rows):
        some = range(start, min(start + rows, batch * len(offsets)))
        piece = function(some_lattices(x, 2, some, multiple), layout.rows(some.start, some.stop))
        if result is None:
            result = piece.new_empty((batch, piece.shape[1], *x.shape[2:]))
        for row, values in zip(some, piece, strict=True):
            sample, remainder = divmod(row, len(offsets))
            places = lattice(result[sample], 2, offsets[remainder])
            places.copy_(crop(values, places.shape[1:]))
    assert result is not None
    return result
