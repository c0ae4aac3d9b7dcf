"""DeepMedic (Kamnitsas et al. 2017): valid convolutions on the scan and on coarser copies of its surroundings.

Shapes: B samples; C channels; *spatial two or three axes, D the first of them, whose slices are the planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from rarevox.compiled import is_exported
from rarevox.networks.blocks import CONVOLUTION, check_input, check_options, crop_faces, initialise, unreduced
from rarevox.networks.cpu import ops
from rarevox.networks.geometry import Geometry
from rarevox.networks.norms import BATCH_NORM
from rarevox.networks.protocols import Reduction
from rarevox.networks.recorded import Traced
from rarevox.networks.valid_path import RESIDUAL_LAYERS, ValidPath, ValidUnit


class DeepMedic(Traced):
    """DeepMedic: a path at full resolution, paths at lower ones, joined by fully connected layers as 1³ convolutions.

    Every path has eight valid 3³ convolutions (30, 30, 40, 40, 40, 40, 50, 50). A path of factor f sees the scan
    averaged over blocks of f³ voxels; its output is repeated f times along each axis and concatenated. Two 1³ layers
    of 150 features follow, then a 1³ convolution with bias to linear logits. Batch norm and PReLU throughout.

    Alignment: for F the largest factor, an output of size o needs an input of size o + 16·F, and the path of factor f
    takes its central part of size o + 16·f. Its blocks of f voxels tile the output exactly when o is a multiple of f,
    and the coarse sample that describes a block of the output is the average of that very block. So o is a multiple of
    the least common multiple of all factors. A 3³ first joint layer (``wide``) takes one further voxel from each face.

    Args:
        in_channels: channels of the input.
        out_channels: classes, the background included.
        spatial_dims: 2 or 3.
        low_resolution_factors: the factor of each path beside the one at full resolution, for example (3,) or (3, 5).
        channels: features of the layers of each path.
        joint: features of the joint layers.
        residual: add the input of layers 3, 5 and 7 (cropped, extra channels zero) to the output of layers 4, 6 and 8.
        dropout: probability that a joint feature is set to zero in training; before the last joint layer and the
            logits. 0.5 in the original.
        wide: joint layers of 250, 250 in place of ``joint``, the first with 3³ kernels.
        preactivation: batch norm and PReLU before each convolution, as in the original code, rather than after.

    Shapes: (B, in_channels, *spatial) to logits (B, out_channels, *(spatial − 48)) with the default factor of 3 and
    sizes that are multiples of 3 (51 to 3, 63 to 15, 87 to 39).

    Raises:
        ValueError: an option out of its range; an input with other channels, axes or a size that does not fit.

    Attributes:
        geometry: what input a size of output takes, and the receptive field.
        float32_kernels: the compiled float32 kernels do most of its work on the CPU (three axes, 16 channels or more).

    State dict: ``full.layers.L`` and ``low.P.layers.L`` (path P, layer L, each from 0) and ``joint.J``, each with
    ``conv``, ``norm`` and ``activation``; ``classifier``, after ``last.norm`` and ``last.activation`` with
    ``preactivation``.

    Source: Kamnitsas et al., "Efficient multi-scale 3D CNN with fully connected CRF for accurate brain lesion
    segmentation", Medical Image Analysis 36, 2017; residuals: Kamnitsas et al., BrainLes 2016.

    >>> network = DeepMedic(in_channels=1, out_channels=2, channels=(2,) * 8, joint=(4, 4))
    >>> network(torch.zeros(1, 1, 51, 54, 51)).shape
    torch.Size([1, 2, 3, 6, 3])
    >>> DeepMedic(in_channels=1, out_channels=2, low_resolution_factors=(3, 5)).geometry.input_size((15, 15, 30))
    (95, 95, 110)
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 3,
        low_resolution_factors: Sequence[int] = (3,),
        channels: Sequence[int] = (30, 30, 40, 40, 40, 40, 50, 50),
        joint: Sequence[int] = (150, 150),
        residual: bool = False,
        dropout: float = 0.0,
        wide: bool = False,
        preactivation: bool = False,
    ) -> None:
        super().__init__()
        check_options(in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, dropout=dropout)
        self.factors = _check_whole("low_resolution_factors", low_resolution_factors, least=2)
        channels = _check_whole("channels", channels, least=1)
        joint = _check_whole("joint", (250, 250) if wide else joint, least=1)
        if residual and any(
            channels[number - 3] > channels[number - 1] for number in RESIDUAL_LAYERS if number <= len(channels)
        ):
            raise ValueError(
                f"with residual=True no layer may have fewer channels than two layers before, got {channels}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.layers = len(channels)
        self._preactivation = preactivation
        self._joint_size = 3 if wide else 1
        self._widest = max(channels)
        self.float32_kernels = spatial_dims == 3 and min(channels) >= ops.FAST_CHANNELS
        self.geometry = self._geometry(spatial_dims, self._joint_size)
        self.full = ValidPath(in_channels, channels, spatial_dims, residual, preactivation)
        self.low = nn.ModuleList(
            ValidPath(in_channels, channels, spatial_dims, residual, preactivation) for _ in self.factors
        )
        sizes = (channels[-1] * (1 + len(self.factors)), *joint)
        self.joint = nn.ModuleList(
            ValidUnit(sizes[i], sizes[i + 1], 3 if wide and i == 0 else 1, spatial_dims, preactivation, bare=False)
            for i in range(len(joint))
        )
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Sequential()
        if preactivation:
            self.last.add_module("norm", BATCH_NORM[spatial_dims](sizes[-1]))
            self.last.add_module("activation", nn.PReLU(sizes[-1]))
        self.classifier = CONVOLUTION[spatial_dims](sizes[-1], out_channels, 1)
        initialise(self)

    def _geometry(self, dims: int, joint_size: int) -> Geometry:
        """Sizes and receptive field; see the class for the alignment."""
        largest, extra = max(self.factors, default=1), joint_size // 2
        reach = 2 * self.layers
        # One output voxel looks at ``joint_size`` neighbours, which touch at most 1 + ⌈(joint_size − 1) / f⌉ blocks.
        fields = [f * (reach + 1 + math.ceil((joint_size - 1) / f)) for f in (1, *self.factors)]
        return Geometry(
            receptive_field=(max(fields),) * dims,
            margin=self.layers * largest + extra,
            multiple=math.lcm(*self.factors),
            base=reach * largest,
            minimum=reach * largest + joint_size,
        )

    def forward(self, x: torch.Tensor, reduce: Reduction = unreduced) -> torch.Tensor:
        """Logits (B, out_channels, *geometry.output_size(spatial)) for ``x`` (B, in_channels, *spatial).

        ``reduce`` takes logits (B, out_channels, *piece) to (B, C', *piece) voxel by voxel; in evaluation the joint
        layers go through the volume in pieces, and their logits are never held together.
        """
        check_input(x, self.in_channels, self.geometry)
        largest = max(self.factors, default=1)
        low = []
        for factor, path in zip(self.factors, self.low, strict=True):
            low.append(path(_average(crop_faces(x, self.layers * (largest - factor)), factor)))
        x = crop_faces(x, self.layers * (largest - 1))
        size = tuple(length - 2 * self.layers for length in x.shape[2:])
        if self.training or torch.is_grad_enabled() or is_exported(x):
            return reduce(self._join(self.full(x), low, size))
        kept: ops.Kept = {}
        joint = ops.joint_layers(
            lambda planes, first: self._join(planes, low, size, first, kept),
            [] if self._preactivation else [unit for unit in self.joint if isinstance(unit, ValidUnit)],
            self.classifier,
            low,
            self.factors,
            size,
            lost=self._joint_size - 1,
        )
        return ops.in_planes(x, self.full, self.full.units, self.full.added, joint, reduce)

    def _join(
        self,
        full: torch.Tensor,
        low: Sequence[torch.Tensor],
        size: Sequence[int],
        first: int = 0,
        kept: ops.Kept | None = None,
    ) -> torch.Tensor:
        """Logits from some planes, from ``first`` on, of the paths' outputs; ``size`` is that at full resolution."""
        y = ops.beside(full, low, size, first)
        widths = ops.widths(full, low)
        for number, layer in enumerate(self.joint):
            y = layer(y, widths=widths, kept=kept) if number == 0 else layer(self.dropout(y), kept=kept)
        return ops.pointwise_convolution(self.dropout(self.last(y)), self.classifier)

    def peak_bytes(self, itemsize: int, reduced: bool = False) -> float:
        """Memory that a pass in evaluation takes for each voxel of the input, at most.

        Where planes go through a few at a time, in float32 on the CPU, it is that of the scan, the low paths and some
        planes, more with residuals (a third buffer of them) and most with ``wide``; tiles of a few million voxels and
        less hold up to twice as much a voxel, under 1 GB in all, for the planes do not shrink with them. Elsewhere the
        full path decides: a layer's input, what comes of it before and after PReLU, and with residuals the input of two
        layers ago; smaller tiles hold less, since the path sees only the middle of their input.

        Args:
            itemsize: bytes of a number.
            reduced: the logits are reduced a piece at a time (``reduce``).
        """
        logits = 0 if reduced else self.out_channels
        if itemsize == 4 and ops.can_stream(self.classifier.weight):
            planes = 1.0 if self._joint_size > 1 else 0.8 if self.full.added else 0.75
            return itemsize * (self.in_channels + planes * self._widest + logits)
        widest = ops.aligned(self._widest) if itemsize == 2 else self._widest  # as on a GPU
        path = (3 + bool(self.full.added)) * widest
        return float(itemsize * (self.in_channels + max(path, widest + logits)))


def _average(x: torch.Tensor, factor: int) -> torch.Tensor:
    """The mean over blocks of ``factor`` voxels along each axis."""
    return F.avg_pool2d(x, factor) if x.ndim == 4 else F.avg_pool3d(x, factor)


def _check_whole(name: str, values: Sequence[int], least: int) -> tuple[int, ...]:
    """``values`` as a tuple of whole numbers of at least ``least``."""
    numbers = tuple(values) if isinstance(values, Sequence) else ()
    if not isinstance(values, Sequence) or any(not isinstance(v, int) or v < least for v in numbers):
        raise ValueError(f"{name} must be a list of whole numbers of at least {least}, got {values!r}")
    if not numbers and name != "low_resolution_factors":
        raise ValueError(f"{name} needs at least one number, got {values!r}")
    return numbers
