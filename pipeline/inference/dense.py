"""Dense inference: whole scans in as few passes as memory allows, exact where the network allows it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from rarevox.networks import Geometry
from rarevox.networks.blocks import unreduced
from rarevox.pipeline.device import Precision, channels_last, keep_freed_memory, release_memory
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.scan_statistics import ScanStatistics
from rarevox.pipeline.inference.tiling.graphs import Graphs
from rarevox.pipeline.inference.tiling.memory import (
    Effort,
    tile_voxels,
    usual_voxels,
    voxels_in_memory,
    with_less_each_time,
)
from rarevox.pipeline.inference.tiling.mirrored import mirrored_mean
from rarevox.pipeline.inference.tiling.sending import sent
from rarevox.pipeline.inference.tiling.stitch import Forward, all_class_indices, class_indices, stitch
from rarevox.pipeline.inference.tiling.surround import surround
from rarevox.pipeline.inference.tiling.tiles import (
    AxisRule,
    Box,
    Tile,
    axis_rules,
    computed_voxels,
    fewest_tiles,
    plan,
    whole_axes,
)
from rarevox.pipeline.inference.tiling.windows import gathered, window_slabs, window_starts
from rarevox.pipeline.inference.watch import TileWatch
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.transforms.decision import Decision, shaped
from rarevox.transforms.nested import NestedDecision, depth_log_probabilities

MODES = ("auto", "exact", "window")
REDUCTIONS = ("scores", "labels")
IN_PIECES = (
    "the network normalises by the statistics of all that it is given at once, and memory was too short for this scan "
    "in one pass: its labels may differ from those of a machine with more"
)


class DenseInferer(Inferer):
    """Run a network over a whole scan.

    ``exact``: tiles with the full context that the network's geometry asks for (one tile where memory allows), so the
    result equals a single pass over the volume. Networks of valid convolutions see zeros beyond the volume's faces.
    ``window``: overlapping Gaussian windows of the training patch size, those of MONAI's ``SlidingWindowInferer``, for
    size-keeping networks that should see at inference just what they saw in training. Only the slab that further
    windows still reach is held as class scores.
    ``auto``: exact, unless the network keeps the size, the scan does not fit into memory in one pass, and the context
    makes exact tiles dearer than windows (deep U-Nets, whose receptive field exceeds any tile).

    Of networks with instance or group norms, whose output depends on all that they are given at once
    (:func:`rarevox.pipeline.inference.tiling.tiles.whole_axes`), no context makes a tile exact. ``auto`` then is one
    pass or windows by the size of the scan alone, whatever memory there is: one pass where exact tiles would be one if
    3 GB were to be had for float32, else windows. ``exact`` is one pass where memory allows it. Where another way had
    to be taken, tiles or windows after memory ran out, the notes have a ``warning``.

    A box is computed as the whole scan would be, so it gets the whole scan's numbers.

    A network that pads, and whose loss left out a ``loss_margin`` at the faces of its patches, has never been judged so
    near to its own padding. So the scan is computed as lying in as many voxels of zeros, as a training patch at its
    border does, and windows count, and overlap, without so many voxels at their faces.

    Args:
        geometry: of the network.
        precision: number format of the forward pass; None is float32.
        mode: ``auto``, ``exact`` or ``window``.
        loss_margin: voxels from each face of the network's output that the loss did not see in training, one an axis or
            one for all; along axes on which the convolutions are valid it asks for nothing.
        window_size: the window of ``window``; the training patch size.
        overlap: of neighbouring windows, a share of the window.
        window_batch: windows computed at once.
        tile_batch: tiles of one size computed at once; they share the memory budget.
        memory_gb: what the activations of one pass may take; None is half of the free memory of the device, at most
            3 GB on a CPU (a scan of 240×240×155 voxels through HighResNet in one pass). Networks with instance or group
            norms are not cut for it.
        flips: axes of the volume (0, 1, 2) along which mirrored copies are computed too; probabilities of all
            combinations are averaged.
        reduce: ``scores`` returns float32 logits (mean probabilities with flips), (B, C, *spatial); ``labels`` returns
            class indices, (B, 1, *spatial) uint8, reduced tile by tile so that no class map of the whole scan is held.
        temperature: divides the logits where probabilities are asked for (:meth:`log_probabilities`); scores and labels
            are the same at any temperature. `rarevox calibrate` fits it.
        decision: which class the probabilities make the label; None is the most probable. A
            :class:`rarevox.transforms.NestedDecision` says that the network's outputs are nested regions, the scores
            then are their logits (with flips those of the mean probabilities). One that asks for the
            confidence of components needs all scores, and ``reduce`` is then ``scores`` whatever was asked.
        statistics: moves the network's batch norms for each scan; None is none.
        cuda_graphs: on CUDA, blocks of a size that has come before go through as a graph
            (:class:`rarevox.pipeline.inference.tiling.graphs.Graphs`).

    Raises:
        RequestError: an unknown mode or reduction, windows for a network of valid convolutions or that hold nothing but
            margins, a margin that is no whole number from 0, flips along what is no axis, or a temperature that is not
            positive.

    A device (or a machine) that runs out of memory is asked for less: single tiles, then smaller ones, then results
    gathered on the CPU; the notes say so. The result is the same, but for the warning above.

    Attributes:
        notes: what the last call decided (``tiles`` or ``windows``; ``out_of_memory``, the steps down; ``warning``),
            for the result row.
        watch: None, or who is shown the class scores of each tile where they are reduced to labels; see
            :class:`rarevox.pipeline.inference.watch.TileWatch`.

    Example:
        >>> network = torch.nn.Conv3d(1, 2, 1)
        >>> inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), reduce="labels")
        >>> inferer(torch.zeros(1, 1, 4, 5, 6), network).shape, inferer.notes
        (torch.Size([1, 1, 4, 5, 6]), {'tiles': 1})
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        precision: Precision | None = None,
        mode: str = "auto",
        loss_margin: int | Sequence[int] = 0,
        window_size: Sequence[int] | None = None,
        overlap: float = 0.5,
        window_batch: int = 4,
        tile_batch: int = 1,
        memory_gb: float | None = None,
        flips: Sequence[int] = (),
        reduce: str = "scores",
        temperature: float = 1.0,
        decision: Decision | None = None,
        statistics: ScanStatistics | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        if mode not in MODES or reduce not in REDUCTIONS:
            raise RequestError(
                f"inference mode {mode!r}, reduce {reduce!r}: expected one of {MODES} and of {REDUCTIONS}"
            )
        if mode == "window" and (window_size is None or any(geometry.margin)):
            raise RequestError("mode 'window' needs window_size and a network that keeps the size; use mode 'exact'")
        self.surround, self.window_size = surround(geometry, loss_margin), window_size
        if mode == "window" and min(self._counted()) < 1:
            raise RequestError(
                f"mode 'window': windows of {list(window_size or ())} hold nothing but the margins of {self.surround} "
                "that the loss did not see at their faces; use mode 'exact'"
            )
        if len(set(flips)) < len(flips) or not set(flips) <= set(range(geometry.spatial_dims)):
            raise RequestError(
                f"inferer#flips is {list(flips)}; expected axes of the volume, each once: "
                f"{', '.join(map(str, range(geometry.spatial_dims)))}"
            )
        if not temperature > 0:
            raise RequestError(f"temperature is {temperature}; expected a positive number (1 changes nothing)")
        self.statistics = statistics or ScanStatistics(0.0, ())
        self.geometry = geometry
        self.precision = precision
        self.mode = mode
        self.overlap = overlap
        self.window_batch = window_batch
        self.tile_batch = max(int(tile_batch), 1)
        self.memory_gb = memory_gb
        self.flips = tuple(flips)
        self.reduce = "scores" if decision is not None and decision.confidences else reduce
        self.temperature = float(temperature)
        self.decision = decision
        self.nested = isinstance(decision, NestedDecision)
        self.graphs = Graphs() if cuda_graphs else None
        self.notes: dict[str, Any] = {}
        self.watch: TileWatch | None = None

    def log_probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """The logarithms of the class probabilities at ``temperature``, float32, from scores (C, …) of this inferer.

        log softmax(logits / T); mean probabilities p over flips become log softmax(log p / T), which at T = 1 is log p.
        Of nested regions, whose scores are K logits, these are the probabilities of their K + 1 depths.
        """
        scores = scores.float()
        if self.nested:
            return depth_log_probabilities(scores / self.temperature)
        logits = scores.clamp_min(torch.finfo(torch.float32).tiny).log() if self.flips else scores
        return torch.log_softmax(logits / self.temperature, 0)

    def weighted(self, scores: torch.Tensor, axis: int = 0) -> torch.Tensor:
        """Scores of this inferer whose largest along the class axis ``axis`` is the label that ``decision`` gives.

        With its weights w: logits + T · ln w, and mean probabilities over flips times w^T. Nested regions have weights
        of their own, see :class:`rarevox.transforms.NestedDecision`.
        """
        if isinstance(self.decision, NestedDecision):
            return self.decision.weighted_logits(scores, self.temperature, axis)
        if self.decision is None or not self.decision.moves:
            return scores
        shift = self.temperature * self.decision.log_weights
        scores = scores.float()
        return scores * shaped(shift.exp(), scores, axis) if self.flips else scores + shaped(shift, scores, axis)

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
        outputs = [self.inside(image, network, None, *args, **kwargs) for image in images]
        out = torch.stack(outputs) if len(outputs) > 1 else outputs[0][None]
        return MetaTensor(out, meta=inputs.meta) if isinstance(inputs, MetaTensor) else out

    def inside(
        self,
        image: torch.Tensor,
        network: Callable[..., torch.Tensor],
        box: Box | None = None,
        *args: Any,
        reduce: str | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Segment a box of one scan; nothing is computed outside but the context that the box needs, which for networks
        with instance or group norms in one pass is all of the scan.

        Args:
            image: (C_in, *spatial).
            network: as in a call.
            box: first voxel and end along each axis; None is the whole scan.
            reduce: in place of the inferer's own.

        Returns:
            (C, *box) or (1, *box) on the CPU: the same numbers as the whole scan would give there.
        """
        labels = (reduce or self.reduce) == "labels"

        def call(block: torch.Tensor, **more: Any) -> torch.Tensor:
            with nullcontext() if self.precision is None else self.precision.autocast():
                return network(block, *args, **kwargs, **more)

        graphs = self.graphs if isinstance(network, torch.nn.Module) and not (args or kwargs) else None
        with torch.no_grad(), self.statistics.of(image, network, call) as own:
            found = self._inside(image, network, box, labels, call, graphs)
        self.notes |= {"scan_statistics": round(own, 3)} if self.statistics.share else {}
        return found

    def computed_voxels(self, shape: Sequence[int]) -> int:
        """Of a scan of so many voxels an axis in one pass: it, and the zeros around it.

        >>> DenseInferer(Geometry(receptive_field=(9, 9, 9)), loss_margin=2).computed_voxels((6, 7, 8))
        1320
        """
        return math.prod(n + 2 * around for n, around in zip(shape, self.surround, strict=True))

    def _inside(
        self,
        image: torch.Tensor,
        network: Callable[..., torch.Tensor],
        box: Box | None,
        labels: bool,
        call: Callable[..., torch.Tensor],
        graphs: Graphs | None,
    ) -> torch.Tensor:
        device = _device_of(network, image)
        # Who watches, or averages mirror images, needs all scores of a tile; else the network may hold a few at a time.
        reducible = labels and not self.flips and self.watch is None and _takes_reduction(network)
        held = 0 if graphs is None else graphs.buffer_bytes
        voxels = voxels_in_memory(network, device, self.precision, self.memory_gb, reduced=reducible, spare_bytes=held)
        shape, looked = image.shape[1:], whole_axes(network, self.geometry.spatial_dims)

        def computed(windows: bool, whole: Sequence[bool] | None) -> torch.Tensor:
            reduced, forward = reducible and not windows, call
            if reduced:
                forward = partial(call, reduce=self._all_labels)
            # By numbers that are sent from the host.
            weighted = self.nested or (self.decision is not None and self.decision.moves)
            if graphs is not None and not (reduced and weighted):
                forward = graphs.of(network, forward, (reduced, self.precision))
            if windows:
                return self._windows(image, box, forward, device, labels)
            rules = axis_rules(self.geometry, self.surround, whole)
            if reduced:
                return self._tiles(image, box, forward, device, voxels, unreduced, rules)
            finish = self._labels if labels else torch.Tensor.float
            return self._tiles(image, box, forward, device, voxels, finish, rules, watched=labels)

        if self.mode == "window" or not any(looked):
            return computed(self._prefer_windows(shape, voxels), None)
        # How the network sees the scan decides about its labels, so the measure is not what is free just now.
        usual, steps = usual_voxels(network), ""
        may_window = self.mode == "auto" and self._has_windows()
        if self._uncut(shape, looked, usual if may_window else max(voxels, usual)):
            try:
                return computed(False, looked)
            except (RuntimeError, MemoryError, OSError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here has the error let go of what the failed pass held.
            release_memory(device)
            steps = "one pass to windows" if may_window else "one pass to tiles"
        elif may_window:
            return computed(True, None)
        found = computed(may_window, None)
        told = {"out_of_memory": [steps, *self.notes.get("out_of_memory", ())]} if steps else {}
        self.notes |= told | {"warning": IN_PIECES}
        return found

    def _tiles(
        self,
        image: torch.Tensor,
        box: Box | None,
        call: Forward,
        device: torch.device,
        voxels: float,
        finish: Callable[[torch.Tensor], torch.Tensor],
        rules: Sequence[AxisRule],
        watched: bool = False,
    ) -> torch.Tensor:
        """Tiles over the box, as few as an effort of so many input voxels a pass allows."""
        shape = image.shape[1:]
        size = shape if box is None else [end - begin for begin, end in box]

        def layout(effort: Effort) -> list[Tile]:
            return list(plan(shape, fewest_tiles(shape, rules, effort.voxels / effort.batch, box), rules, box))

        def attempt(effort: Effort, steps: list[str]) -> torch.Tensor:
            tiles = layout(effort)
            self.notes = {"tiles": len(tiles)} | ({"out_of_memory": steps} if steps else {})
            if device.type == "cpu" and len(tiles) > 1 and any(self.geometry.margin):
                # Such tiles ask for the same blocks again and again, and between them hold none.
                keep_freed_memory(large=True)
            where: dict[str, Any] = {"device": device, "batch": effort.batch, "on_device": effort.on_device}
            shown = self._shown(box) if watched else None
            # Where the tiles need all of the scan, and more than once where they overlap, it is sent as it is.
            whole = effort.on_device and sum(math.prod(tile.size) for tile in tiles) >= math.prod(shape)
            source = sent(image, device) if whole else image
            return stitch(source, tiles, size, partial(self._scores, call=call), **where, finish=finish, watch=shown)

        # What cannot be cut along any axis is not tried again in smaller tiles.
        smaller = 3 if all(rule.whole for rule in rules) else 0
        effort = Effort(voxels, self.tile_batch, on_device=device.type == "cuda", smaller=smaller)
        return with_less_each_time(effort, attempt, lambda effort: tile_voxels(layout(effort)), device, self._spare)

    def _spare(self) -> bool:
        """Give back what is held for passes to come; whether there was anything."""
        return self.graphs is not None and self.graphs.clear()

    def _labels(self, scores: torch.Tensor) -> torch.Tensor:
        """(1, …) class indices of (C, …) scores."""
        return class_indices(scores, self.weighted)

    def _all_labels(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, 1, …) class indices of (B, C, …) scores; for pieces."""
        return all_class_indices(self.weighted(scores, 1))

    def _prefer_windows(self, shape: Sequence[int], voxels: float) -> bool:
        """Whether windows are asked for, or ``auto`` finds them cheaper than exact tiles.

        Of the whole scan, also where a box is wanted: its labels are not to be others.
        """
        if self.mode != "auto" or not self._has_windows():
            return self.mode == "window"
        assert self.window_size is not None
        rules = axis_rules(self.geometry, self.surround)
        counts = fewest_tiles(shape, rules, voxels)
        if max(counts) == 1:
            return False
        starts = window_starts(shape, self._counted(), self.overlap)
        return computed_voxels(shape, counts, rules) > len(starts) * math.prod(self.window_size)

    def _has_windows(self) -> bool:
        """Whether the network takes windows, and something of them counts."""
        return self.window_size is not None and not any(self.geometry.margin) and min(self._counted()) >= 1

    def _uncut(self, shape: Sequence[int], looked: Sequence[bool], voxels: float) -> bool:
        """Whether tiles of so many voxels at most leave a scan uncut along the axes that are looked along."""
        counts = fewest_tiles(shape, axis_rules(self.geometry, self.surround), voxels)
        return all(count == 1 for count, along in zip(counts, looked, strict=True) if along)

    def _counted(self) -> list[int]:
        """What counts of a window, along each axis."""
        assert self.window_size is not None
        return [w - 2 * m for w, m in zip(self.window_size, self.surround, strict=True)]

    def _scores(self, block: torch.Tensor, call: Forward) -> torch.Tensor:
        """Logits of a block, or mean probabilities over its mirror images."""
        block = block.contiguous(memory_format=channels_last(block.ndim - 2))
        return mirrored_mean(block, call, self.flips, nested=self.nested) if self.flips else call(block)

    def _windows(
        self, image: torch.Tensor, box: Box | None, call: Forward, device: torch.device, labels: bool
    ) -> torch.Tensor:
        """Those of the whole scan's overlapping windows that the box needs, in slabs that are reduced one by one."""
        assert self.window_size is not None
        window, finish = self.window_size, self._labels if labels else None
        size = image.shape[1:] if box is None else [end - begin for begin, end in box]

        def attempt(effort: Effort, steps: list[str]) -> torch.Tensor:
            self.notes = {"windows": True} | ({"out_of_memory": steps} if steps else {})
            where: dict[str, Any] = {"device": device, "batch": effort.batch, "on_device": effort.on_device}
            where |= {"margin": self.surround, "box": box}
            source = sent(image, device) if effort.on_device else image
            slabs = window_slabs(source, window, self.overlap, partial(self._scores, call=call), **where)
            shown = self._shown(box) if labels else None
            return gathered(slabs, size, finish, shown, on_device=labels and effort.on_device)

        effort = Effort(0, self.window_batch, on_device=device.type == "cuda")
        return with_less_each_time(effort, attempt, lambda effort: None, device, self._spare)

    def _shown(self, box: Box | None) -> Callable[[torch.Tensor, tuple[slice, ...]], None] | None:
        """Begin a pass for whoever watches; who takes scores at their place in the box."""
        watch = self.watch
        if watch is None:
            return None
        watch.begin()

        def take(scores: torch.Tensor, where: tuple[slice, ...]) -> None:
            if box is not None:
                where = tuple(slice(w.start + n, w.stop + n) for w, (n, _) in zip(where, box, strict=True))
            watch.take(scores, where)

        return take


def _takes_reduction(network: object) -> bool:
    """Whether ``forward`` itself takes ``reduce``; that of a subclass may not."""
    forward = getattr(network, "forward", None)
    return forward is not None and "reduce" in inspect.signature(forward).parameters


def _device_of(network: object, image: torch.Tensor) -> torch.device:
    """Where the network runs; where the image is if the network has no parameters."""
    parameters = network.parameters() if hasattr(network, "parameters") else iter(())
    return next((parameter.device for parameter in parameters), image.device)
