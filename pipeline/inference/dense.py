"""Dense inference: whole scans in as few passes as memory allows, exact where the network allows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer

from networks import Geometry
from pipeline.device import Precision, available_memory_gb, channels_last
from pipeline.errors import RequestError
from pipeline.inference.tiles import AxisRule, Tile, computed_voxels, fewest_tiles, plan
from transforms.patches import crop_padded

MODES = ("auto", "exact", "window")
REDUCTIONS = ("scores", "labels")


class DenseInferer(Inferer):
    """Run a network over a whole scan.

    ``exact``: tiles with the full context that the network's geometry asks for (one tile where memory allows), so the
    result equals a single pass over the volume. Networks of valid convolutions see zeros beyond the volume's faces.
    ``window``: MONAI's overlapping Gaussian windows of the training patch size, for size-keeping networks that should
    see at inference just what they saw in training.
    ``auto``: exact, unless the network keeps the size, the scan does not fit into memory in one pass, and the context
    makes exact tiles dearer than windows (deep U-Nets, whose receptive field exceeds any tile).

    Args:
        geometry: of the network.
        precision: number format of the forward pass; None is float32.
        mode: ``auto``, ``exact`` or ``window``.
        window_size: the window of ``window``; the training patch size.
        overlap: of neighbouring windows, a share of the window.
        window_batch: windows computed at once.
        memory_gb: what the activations of one pass may take; None is half of the free memory of the device, at most
            3 GB on a CPU (a scan of 240×240×155 voxels through HighResNet in one pass).
        flips: axes of the volume (0, 1, 2) along which mirrored copies are computed too; probabilities of all
            combinations are averaged.
        reduce: ``scores`` returns float32 logits (mean probabilities with flips), (B, C, *spatial); ``labels`` returns
            class indices, (B, 1, *spatial) uint8, reduced tile by tile so that no class map of the whole scan is held.

    Raises:
        RequestError: an unknown mode or reduction, or windows for a network of valid convolutions.

    Attributes:
        notes: what the last call decided (tiles, steps down after running out of memory), for the result row.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        precision: Precision | None = None,
        mode: str = "auto",
        window_size: Sequence[int] | None = None,
        overlap: float = 0.5,
        window_batch: int = 4,
        memory_gb: float | None = None,
        flips: Sequence[int] = (),
        reduce: str = "scores",
    ) -> None:
        if mode not in MODES or reduce not in REDUCTIONS:
            raise RequestError(
                f"inference mode {mode!r}, reduce {reduce!r}: expected one of {MODES} and of {REDUCTIONS}"
            )
        if mode == "window" and (window_size is None or any(geometry.margin)):
            raise RequestError("mode 'window' needs window_size and a network that keeps the size; use mode 'exact'")
        self.geometry = geometry
        self.precision = precision
        self.mode = mode
        self.window_size = window_size
        self.overlap = overlap
        self.window_batch = window_batch
        self.memory_gb = memory_gb
        self.flips = tuple(flips)
        self.reduce = reduce
        self.notes: dict[str, Any] = {}

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment (B, C_in, *spatial).

        Args:
            inputs: preprocessed scans, on any device; tiles are moved to the network's.
            network: called as ``network(tile, *args, **kwargs)``.

        Returns:
            on the CPU; see ``reduce``. Of the inputs' class, so a MetaTensor keeps its affine.
        """
        images = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs

        def call(block: torch.Tensor) -> torch.Tensor:
            return network(block, *args, **kwargs)

        with torch.inference_mode():
            outputs = [self._volume(image, call, network) for image in images]
        out = torch.stack(outputs).clone()
        return MetaTensor(out, meta=inputs.meta) if isinstance(inputs, MetaTensor) else out

    def _volume(self, image: torch.Tensor, call: Callable[[torch.Tensor], torch.Tensor], network: Any) -> torch.Tensor:
        """One scan (C_in, *spatial); a device out of memory is asked again with a quarter of the voxels."""
        device = (
            next((p.device for p in network.parameters()), image.device)
            if hasattr(network, "parameters")
            else image.device
        )
        voxels = self._voxels_in_memory(network, device)
        if self._prefer_windows(image.shape[1:], voxels):
            return self._windows(image, call, device)
        for attempt in range(4):
            counts = fewest_tiles(image.shape[1:], self._rules(), voxels)
            tiles = list(plan(image.shape[1:], counts, self._rules()))
            self.notes = {"tiles": len(tiles)} | ({"out_of_memory_retries": attempt} if attempt else {})
            try:
                return self._stitch(image, tiles, call, device)
            except torch.OutOfMemoryError:
                if attempt == 3 or len(tiles) >= image[0].numel():
                    raise
                torch.cuda.empty_cache()
                voxels = max(tile_voxels(tiles) / 4, 1)
        raise AssertionError("unreachable")

    def _prefer_windows(self, shape: Sequence[int], voxels: float) -> bool:
        """Whether windows are asked for, or ``auto`` finds them cheaper than exact tiles."""
        if self.mode != "auto" or self.window_size is None or any(self.geometry.margin):
            return self.mode == "window"
        counts = fewest_tiles(shape, self._rules(), voxels)
        if max(counts) == 1:
            return False
        windows = math.prod(shape) / (1 - self.overlap) ** len(shape)
        return computed_voxels(shape, counts, self._rules()) > windows

    def _rules(self) -> list[AxisRule]:
        """The geometry, axis by axis, as the tiler reads it."""
        g = self.geometry
        rules = []
        for axis, margin in enumerate(g.margin):
            context = 0 if margin else (g.receptive_field[axis] - 1) // 2
            rules.append(AxisRule(margin, context, g.multiple[axis], g.base[axis], g.minimum[axis]))
        return rules

    def _voxels_in_memory(self, network: Any, device: torch.device) -> float:
        """Input voxels of one pass that the memory budget allows."""
        budget = self.memory_gb
        if budget is None:
            budget = available_memory_gb(device) / 2
            budget = min(budget, 3.0) if device.type == "cpu" else budget
        itemsize = 4 if self.precision is None else self.precision.dtype.itemsize
        return budget * 1e9 / activation_bytes(network, itemsize)

    def _stitch(
        self, image: torch.Tensor, tiles: list[Tile], call: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """Compute each tile and put it in its place."""
        result: torch.Tensor | None = None
        for tile in tiles:
            block = crop_padded(image, tile.start, tile.size)[None].to(device)
            scores = self._scores(block, call)[0][(slice(None), *tile.keep)]
            part = _labels(scores) if self.reduce == "labels" else scores.float()
            if result is None:
                result = torch.zeros((part.shape[0], *image.shape[1:]), dtype=part.dtype)
            result[(slice(None), *tile.output)] = part.cpu()
        assert result is not None
        return result

    def _scores(self, block: torch.Tensor, call: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Logits of a block, or mean probabilities over its mirror images."""
        block = block.contiguous(memory_format=channels_last(block.ndim - 2))
        if not self.flips:
            return self._forward(block, call)
        total: torch.Tensor | None = None
        for axes in subsets(self.flips):
            dims = [axis + 2 for axis in axes]
            scores = self._forward(block.flip(dims) if dims else block, call).float().softmax(1)
            scores = scores.flip(dims) if dims else scores
            total = scores if total is None else total.add_(scores)
        assert total is not None
        return total.div_(2 ** len(self.flips))

    def _forward(self, block: torch.Tensor, call: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if self.precision is None:
            return call(block)
        with self.precision.autocast():
            return call(block)

    def _windows(
        self, image: torch.Tensor, call: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """MONAI's sliding windows; scores accumulate on the CPU."""
        assert self.window_size is not None
        inferer = SlidingWindowInferer(
            tuple(self.window_size), self.window_batch, self.overlap, "gaussian", sw_device=device, device="cpu"
        )
        scores = inferer(image[None], lambda block: self._scores(block, call).float().cpu())[0]
        self.notes = {"windows": True}
        return _labels(scores) if self.reduce == "labels" else scores


def subsets(axes: Sequence[int]) -> Iterator[list[int]]:
    """Every subset of the axes, the empty one first.

    >>> list(subsets([0, 2]))
    [[], [0], [2], [0, 2]]
    """
    for bits in range(2 ** len(axes)):
        yield [axis for place, axis in enumerate(axes) if bits >> place & 1]


def tile_voxels(tiles: Sequence[Tile]) -> int:
    """Voxels of the largest input block."""
    return max(torch.Size(tile.size).numel() for tile in tiles)


def activation_bytes(network: Any, itemsize: int) -> float:
    """Peak memory of a forward pass without gradients, bytes for each input voxel.

    A network may state it itself, as ``peak_channels``: the channels of the scan's full size that it holds at once. For
    the others it is estimated from the widest layer: a layer holds its input, its output and one temporary of either
    (normalisation, activation, padding), a residual connection one more, and full-resolution layers decide.
    """
    stated = getattr(network, "peak_channels", None)
    if stated is not None:
        return float(stated * itemsize)
    widest = 1
    modules = network.modules() if hasattr(network, "modules") else ()
    for module in modules:
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            widest = max(widest, module.in_channels + module.out_channels)
    return 2.0 * widest * itemsize


def _labels(scores: torch.Tensor) -> torch.Tensor:
    """(1, *spatial) class indices of (C, *spatial) scores, plane by plane: argmax itself makes int64."""
    out = torch.empty(scores.shape[1:], dtype=torch.uint8, device=scores.device)
    for plane in range(scores.shape[1]):
        out[plane] = scores[:, plane].argmax(0).to(torch.uint8)
    return out[None]
