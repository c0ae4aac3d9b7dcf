"""Batch norms that bring a scan's features onto those of training scans: so much of another scanner is taken out."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from rarevox.pipeline.device import release_memory
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.tiling.sending import sent
from rarevox.pipeline.inference.tiling.stitch import Forward
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.transforms.sampling.content import content_of
from rarevox.transforms.sampling.patches import crop_padded

WINDOWS = 32
"""Windows of a scan from which its statistics are taken; running statistics of a training span 50 patches or more."""
ENOUGH = 8
"""Windows that the tissue of a scan must fill for its statistics to count in full."""
PAIR = 2
"""Windows whose variance is taken together, as that of the patches of a training step is."""

Statistics = dict[str, torch.Tensor]
"""Mean and variance (2, C) of each batch norm, by the module's name."""


class ScanStatistics:
    """Batch norms bring the features of a scan onto the mean and variance that they have in training scans.

    In evaluation a batch norm takes its running statistics: x ↦ γ (x − μ) / √(σ² + ε) + β with μ and σ² of the patches
    of training. The features of a scan from another scanner have other ones, and come out shifted and scaled, at every
    norm anew. Here they become, before they are normalised,

        x ↦ μ_ref + (x − μ_ref − a (μ_scan − μ_ref)) / r,   r² = ((σ²_scan + ε) / (σ²_ref + ε))^a,
        a = share · min(1, v / 8),

    which the norm does itself, its μ and σ² set to fit. μ_scan and σ²_scan are the means, over pairs of windows of the
    scan, of what a training step sees of its patches; the 32 windows of the training patch size have their centres in
    the scan's tissue, drawn, always the same ones (fewer where it fills less than 16). The reference is the mean of the
    same over training scans, which `rarevox train` writes at its end (:meth:`reference_of`). v is how many windows the
    tissue fills: statistics of one or two are chance. No label is needed, and scans do not depend on one another.

    The statistics of the scan alone, which the sources take, are not comparable with those of training where patches
    are drawn for rare foreground, as windows of a scan are not: healthy tissue then looks like lesions. Of a scan with
    the statistics of the reference nothing is changed.

    Norms without running statistics are left alone, and so is everything where there is no reference, and where a scan
    lacks a channel (it is 0 throughout): what that changes the network has learnt to bear with the statistics of its
    training, which were of such patches too, while the reference is of scans that have all channels.

    Args:
        share: from 0 (the training's statistics) to 1.
        window: the training patch size.
        reference: as :meth:`reference_of` gives it; None where there is none.

    Raises:
        RequestError: a share that is no number from 0 to 1; when used, a reference of another network.

    Sources: Li et al., "Adaptive batch normalization for practical domain adaptation", Pattern Recognition 80, 2018;
    Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020.
    The reference is rarevox's own.
    """

    def __init__(self, share: float, window: Sequence[int], reference: Statistics | None = None) -> None:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise RequestError(f"scan_statistics is {share!r}; expected a share from 0 to 1")
        self.share = float(share)
        self.window = tuple(int(n) for n in window)
        self.reference = reference
        self._last: tuple[tuple[Any, ...], Statistics, float] | None = None

    @contextmanager
    def of(self, image: torch.Tensor, network: object, forward: Forward) -> Iterator[float]:
        """The network's batch norms are moved for a scan within, and have their own statistics again after it.

        Args:
            image: (C_in, *spatial), on any device.
            network: whose norms they are.
            forward: (B, C_in, *window) through the network, on its device.

        Yields:
            a; 0 where nothing is moved.
        """
        norms = _norms(network) if self.share else {}
        if not norms or self.reference is None:
            yield 0.0
            return
        reference = self._reference_for(norms)
        try:
            found, filled = self._measured_once(image, network, forward)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Tiles may be smaller than two patches of the training, and then go through all the same.
            release_memory(_mean(next(iter(norms.values()))).device)
            found, filled = reference, 0.0
        share = self.share * min(1.0, filled / ENOUGH)
        assert isinstance(network, nn.Module)
        with _kept(network, norms.values()):
            for name, norm in norms.items():
                own, usual = (table[name].to(_mean(norm).device, torch.float64) for table in (found, reference))
                squared = ((own[1] + norm.eps) / (usual[1] + norm.eps)) ** share
                moved = usual[0] + share * (own[0] - usual[0])
                _mean(norm).copy_(moved + (_mean(norm) - usual[0]) * squared.sqrt())
                # √(σ² + ε) becomes r times as large, whatever ε is; the sum is positive where the variance is not.
                variance = (_variance(norm).double() + norm.eps) * squared - norm.eps
                _variance(norm).copy_(variance)
            yield share

    def _measured_once(self, image: torch.Tensor, network: object, forward: Forward) -> tuple[Statistics, float]:
        """:meth:`measured`, of the slabs and boxes of one scan once; the reference, and v = 0, without a channel.

        A weak reference to the memory of a scan keeps its name from going to another, so what has it is that scan.
        """
        where = StorageWeakRef(image.untyped_storage()), image.storage_offset(), image.shape, image.stride()
        key = (*where, weakref.ref(network))
        if self._last is None or self._last[0] != key:
            whole = all(bool(channel.any()) for channel in image)
            found = self.measured(image, network, forward) if whole else (self.reference or {}, 0.0)
            self._last = (key, *found)
        return self._last[1:]

    def measured(
        self, image: torch.Tensor, network: object, forward: Forward, windows: int = WINDOWS
    ) -> tuple[Statistics, float]:
        """What batch norms in training find in windows of a scan, in the mean; the network is as it was afterwards.

        The whole network trains, as far as its forward pass goes another way then (only there it leaves out of the
        statistics what pads its lattices, and takes all of a patch at once), but nothing is dropped out.

        Returns:
            The statistics, none of a network without batch norms, and v, how many windows the scan's tissue fills.
        """
        norms = _norms(network)
        starts, filled = _starts(image, self.window, windows)
        if not norms:
            return {}, filled
        assert isinstance(network, nn.Module)
        with torch.no_grad(), _kept(network, norms.values()):
            network.train()
            for module in network.modules():
                if isinstance(module, _DropoutNd):
                    module.eval()
            device = _mean(next(iter(norms.values()))).device
            for first in range(0, len(starts), PAIR):
                block = torch.stack([crop_padded(image, start, self.window) for start in starts[first : first + PAIR]])
                for norm in norms.values():
                    norm.momentum = PAIR / (first + PAIR)  # 1, 1/2, 1/3, …: a plain mean, of which nothing else is left
                forward(sent(block, device))
            found = {name: torch.stack([_mean(norm), _variance(norm)]) for name, norm in norms.items()}
        return found, filled

    def applies_to(self, network: object) -> bool:
        """Whether the network has norms that can be moved."""
        return bool(_norms(network))

    def reference_of(self, images: Iterable[torch.Tensor], network: object, forward: Forward) -> Statistics:
        """The mean of what is :meth:`measured` in half as many windows of each of several scans, on the CPU."""
        found = [self.measured(image, network, forward, WINDOWS // 2)[0] for image in images]
        return {name: torch.stack([one[name].cpu().double() for one in found]).mean(0) for name in found[0]}

    def _reference_for(self, norms: Mapping[str, _BatchNorm]) -> Statistics:
        wanted = {name: (2, norm.num_features) for name, norm in norms.items()}
        found = {name: tuple(table.shape) for name, table in (self.reference or {}).items()}
        if self.reference is None or found != wanted:
            raise RequestError(
                "the statistics that scans are compared with (models/scan_statistics.pt) are of another network; train "
                "again, or set scan_statistics to 0"
            )
        return self.reference


def _norms(network: object) -> dict[str, _BatchNorm]:
    """The batch norms of a network that have running statistics, by name."""
    modules = network.named_modules() if isinstance(network, nn.Module) else iter(())
    return {name: one for name, one in modules if isinstance(one, _BatchNorm) and one.running_mean is not None}


def _mean(norm: _BatchNorm) -> torch.Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def _variance(norm: _BatchNorm) -> torch.Tensor:
    assert norm.running_var is not None
    return norm.running_var


@contextmanager
def _kept(network: nn.Module, norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Which modules train is as it was afterwards, and so are buffers and momentum of the norms."""
    modes = [(module, module.training) for module in network.modules()]
    before = [(norm, norm.momentum, [one.clone() for one in norm.buffers()]) for norm in norms]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum, buffers in before:
            norm.momentum = momentum
            for buffer, own in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(own)


def _starts(image: torch.Tensor, window: Sequence[int], windows: int) -> tuple[list[list[int]], float]:
    """First voxels of the windows, in pairs, and how many the scan's tissue fills."""
    content = content_of(image.cpu().numpy())
    # The n-th voxel of the tissue is looked for in its plane: a list of all would take more memory than the scan.
    before = np.concatenate([[0], np.cumsum([np.count_nonzero(plane) for plane in content])])
    filled = int(before[-1]) / math.prod(window)
    count = PAIR * max(1, min(windows, math.ceil(2 * filled)) // PAIR)
    drawn = np.random.default_rng(0).integers(int(before[-1]), size=count)
    planes = np.searchsorted(before, drawn, side="right") - 1
    centres = np.array([(p, *np.argwhere(content[p])[n - before[p]]) for p, n in zip(planes, drawn, strict=True)])
    size, sides = np.array(content.shape), np.array(window)
    # Along an axis shorter than the window the scan lies in its middle, as in a training patch.
    inside = np.clip(centres - sides // 2, 0, np.maximum(size - sides, 0))
    return np.where(size < sides, -((sides - size) // 2), inside).tolist(), filled
