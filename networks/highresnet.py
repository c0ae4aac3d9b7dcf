"""HighRes3DNet (Li et al. 2017): dilated residual blocks that keep full resolution from the scan to the labels.

Shapes: B samples; B' rows of the batch axis, samples or their sub-lattices; C channels; *spatial two or three axes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.compiled import is_exported
from rarevox.networks.blocks import CONVOLUTION, check_choice, check_input, check_options, initialise, unreduced
from rarevox.networks.cpu import ops
from rarevox.networks.geometry import Geometry
from rarevox.networks.lattices import pieces
from rarevox.networks.lattices.padding import WHOLE, Layout
from rarevox.networks.lattices.side_by_side import fills_tiles
from rarevox.networks.norms import BATCH_NORM
from rarevox.networks.protocols import Reduction
from rarevox.networks.recompute import recomputed
from rarevox.networks.recorded import Traced
from rarevox.networks.residual import ConvNormActivation, ResidualBlock

DILATIONS = (1, 2, 4)
# Sub-lattices of dilation 4 then have sizes divisible by 4, as the tiles of the CPU's fast convolutions are.
FAST_MULTIPLE = 16
TILE = 4


class HighResNet(Traced):
    """HighRes3DNet: 20 convolutions and a 1³ classifier at full resolution, receptive field 87 voxels.

    A 3³ convolution to ``width`` channels; three residual blocks of two 3³ convolutions with ``width`` channels, three
    with 2·``width`` and dilation 2, three with 4·``width`` and dilation 4; a 1³ convolution to 5·``width``, dropout;
    a 1³ convolution to the classes. Every block is (norm → activation → convolution) twice plus the identity, zero-
    padded half before and half after where the channels grow. No convolution has a bias, and the logits are linear. For
    one input channel and C classes the convolutions have 807,344 + 80·C weights.

    The dilated stages run as plain convolutions on interleaved sub-lattices (`rarevox.networks.lattices`): the same
    result. In evaluation without gradients these pass one after another, so that a whole scan needs little memory.

    Args:
        in_channels: channels of the input.
        out_channels: classes, the background included.
        spatial_dims: 2 or 3.
        width: channels of the first stage; 16 in the paper, fewer for a narrow and more for a wide network.
        activation: "relu", or "prelu" with a slope for each channel.
        norm: "batch" (momentum 0.1, ε 1e-5), or "instance" for batches of one.
        dropout: probability that a feature of the 1³ layer is set to zero in training.
        checkpointing: keep only the input of each block for the backward pass: a third more time, far less memory.
        sub_lattices: False runs dilated convolutions as such.

    Shapes: (B, in_channels, *spatial) to logits (B, out_channels, *spatial); any size, multiples of 16 run fastest.

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
        self.checkpointing, self.sub_lattices = checkpointing, sub_lattices
        self.float32_kernels = spatial_dims == 3 and 2 * width >= ops.FAST_CHANNELS
        self.geometry = Geometry(receptive_field=(87,) * spatial_dims, preferred_multiple=FAST_MULTIPLE)

        def unit(channels_in: int, channels: int, size: int) -> ConvNormActivation:
            return ConvNormActivation(channels_in, channels, size, spatial_dims, norm, activation)

        def stage(channels_in: int, channels: int, dilation: int) -> nn.ModuleList:
            sizes = (channels_in, channels, channels)
            return nn.ModuleList(ResidualBlock(c, channels, spatial_dims, dilation, norm, activation) for c in sizes)

        self._peak_channels, self._features = 3 * width + in_channels, 5 * width
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
            return reduce(self._head(self.extract_features(x), WHOLE))
        # All sub-lattices go through together where statistics or gradients need them all, or where they are small.
        steady = self._affine and not self.training and not torch.is_grad_enabled()
        most, size = pieces.piece_voxels(x, self._features), x.shape[2:]
        at_once = not steady or x[:, 0].numel() <= most
        spare = ops.Spare() if steady else None
        x = self._stage(self.stem(x), WHOLE, index=0, spare=spare)
        dilated = [partial(self._stage, index=index, spare=spare) for index in range(1, len(DILATIONS))]
        if not at_once:
            return pieces.in_pieces(x, dilated, self._head, reduce, most)
        if steady and self.float32_kernels and ops.takes_tiles(x) and fills_tiles(size, DILATIONS[-1], TILE):
            return pieces.packed(x, dilated, self._head, reduce)
        return pieces.on_lattices(x, dilated, self._head, reduce)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """The residual stream after the last block, (B, 4 · width, *spatial), in the order of the scan."""
        check_input(x, self.in_channels, self.geometry)
        x = self.stem(x)
        for index in range(len(DILATIONS)):
            x = self._stage(x, WHOLE, index=index)
        return x

    def _stage(self, x: torch.Tensor, layout: Layout, *, index: int, spare: ops.Spare | None = None) -> torch.Tensor:
        """The three blocks of one dilation; with ``spare`` memory ``x`` may be overwritten."""
        recompute = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in self.stages[index].children():
            x = recomputed(block, x, layout) if recompute else block(x, layout, spare, f"stage {index}")
        return x

    def _head(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The 1³ layers: features, dropout, linear logits."""
        if self.training or torch.is_grad_enabled() or is_exported(x):
            return self.classifier(self.dropout(self.features(x, layout)))
        return ops.pointwise_chain(x, [(self.features.conv, self.features.norm)], self.classifier, layout)

    def peak_bytes(self, itemsize: int, reduced: bool = False) -> float | None:
        """Memory for each voxel of the scan in evaluation, numbers of ``itemsize`` bytes; None if not done in pieces.

        The undilated stage decides: three tensors of its width, the scan and, unless ``reduced``, the logits. Measured
        with 16 channels and 240×240×155 voxels in float32: 190 bytes, 170 reduced, where this gives 220 and 200.
        """
        channels = self._peak_channels + (0 if reduced else self.classifier.out_channels)
        return float(itemsize * channels) if self.sub_lattices and self._affine else None

    @property
    def _affine(self) -> bool:
        """Whether every norm is in evaluation one affine map for each voxel: batch norm, of several processes too."""
        return isinstance(self.stem.norm.norm, _BatchNorm)

    def _runs_on_lattices(self, x: torch.Tensor) -> bool:
        """Whether sub-lattices give the same result, are worth their padding, and need fit the sizes at hand alone."""
        if not self.sub_lattices or is_exported(x):
            return False
        # Statistics that leave the padding out exist for the batch norm of one process alone; evaluation takes none.
        leaves_out = type(self.stem.norm.norm) in BATCH_NORM.values() if self.training else self._affine
        most = pieces.MOST_PADDED if leaves_out else 1.0
        return pieces.padded_share(x.shape[2:], DILATIONS[-1]) <= most
