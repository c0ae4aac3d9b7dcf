"""Several runs as one: their class probabilities averaged on the scan's grid, slab by slab."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.native_watch import chunks
from rarevox.pipeline.inference.region import model_box, native_grid, region_box, shifted
from rarevox.pipeline.inference.segment import Segmenter, is_idle, with_cautions
from rarevox.pipeline.inference.tiling.slabs import slabs
from rarevox.pipeline.inference.tiling.tiles import Box
from rarevox.pipeline.inference.watch import Watch
from rarevox.transforms.labels import values_from_classes
from rarevox.transforms.native_grid import labels_on_grid

SHARED = ("structures", "label_values", "channels")
"""What the runs of an ensemble must have in common; everything else may differ."""

_UNREAD = {"run", "dataset_dir", "fold", "bundle_root", "seed", "post_processing", "gates", "temperature"}
_UNREAD |= {"operating_points", "decision"}
_UNREAD |= {"network_def", "geometry", "network", "patch_size", "loss_margin", "scan_statistics", "inferer"}
_UNREAD |= {"precision", "metric_options", "weights"}
"""Top-level keys on which the preprocessing never depends."""


class EnsembleSegmenter(Segmenter):
    """Runs of any networks, patches, folds and preprocessings that segment the same structures, as one Segmenter.

    Each run preprocesses the scan in its own way (once for runs that do it alike) and computes class scores in its own
    way; these are brought to the scan's grid, turned into probabilities at the run's temperature and averaged, all runs
    alike. The label is the class of the largest mean, weighted by the operating points of the first run, whose
    post-processing and gates count too.

    Memory: the scan is cut into as few slabs as keep the class scores of one slab under ``score_gb``, whatever the
    number of classes (:func:`rarevox.pipeline.inference.tiling.slabs.slabs`); a slab costs the context of its faces
    again.

    Args:
        runs: the run folders.
        stage: ``inference`` or ``evaluate``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the configuration of every run.
        uncorrected: as for a Segmenter, each run by itself.
        trust: as for a Segmenter, all runs alike.
        score_gb: memory for class scores; None is a quarter of what is free, at most 2 GB.

    Raises:
        RequestError: runs of different structures, label values or channels, and what a Segmenter raises.
    """

    def __init__(
        self,
        runs: Sequence[str | Path],
        stage: str = "inference",
        *,
        device: str = "auto",
        settings: Sequence[str] = (),
        uncorrected: bool = False,
        trust: bool = False,
        score_gb: float | None = None,
    ) -> None:
        options: dict[str, Any] = {"device": device, "settings": settings, "uncorrected": uncorrected, "trust": trust}
        self.members = [Segmenter(run, stage, **options) for run in runs]
        first = self.members[0]
        for member in self.members[1:]:
            for key in SHARED:
                if list(member.config[key]) != list(first.config[key]):
                    raise RequestError(
                        f"{member.run} has the {key.replace('_', ' ')} {list(member.config[key])} and {first.run} "
                        f"{list(first.config[key])}; the runs of an ensemble segment the same from the same channels"
                    )
        self.run, self.config, self.device = first.run, first.config, first.device
        self.cleaner, self.inferer = first.cleaner, first.inferer
        self.score_gb, self._slabs = score_gb, 0

    def read(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Read and preprocess one scan for every run; those that preprocess alike share the result."""
        done: list[dict[str, Any]] = []
        for number, member in enumerate(self.members):
            like = next((i for i in range(number) if _same_preprocessing(self.members[i], member)), None)
            alone = {key: value for key, value in item.items() if number == 0 or key != "roi"}
            done.append(member.read(alone) if like is None else done[like])
        return {**done[0], "members": done}

    def notes(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What was decided: the runs' notes are those of the last slab."""
        if is_idle(data):
            return self.warned(data)
        cautions = [caution for member in self.members for caution in member.cautions]
        return {
            "ensemble": len(self.members),
            "slabs": self._slabs,
            "members": [dict(getattr(member.inferer, "notes", {})) for member in self.members],
            **with_cautions(self.warned(data), cautions),
        }

    def _native(self, data: dict[str, Any], watch: Watch | None) -> torch.Tensor:
        shape, _ = native_grid(data["image"])
        box = region_box(data["region"]) if "region" in data else [(0, n) for n in shape]
        values = self.config["label_values"]
        out = torch.zeros(shape, dtype=torch.uint8 if len(values) <= 256 else torch.int16)
        if watch is not None:
            watch.begin(shape)
        self._slabs = 0
        for member in self.members:
            member.cautions = []
        finest = max((own["image"].shape[1:] for own in data["members"]), key=math.prod)
        for slab in slabs(box, len(values), shape, finest, self.score_gb) if box is not None else ():
            self._slabs += 1
            mean = torch.zeros((len(values), *(end - begin for begin, end in slab)))
            for member, own in zip(self.members, data["members"], strict=True):
                add_probabilities(mean, member, own, slab)
            mean /= len(self.members)
            for part, place in chunks(tuple(slice(*span) for span in slab)):
                out[place] = self.decision.weighted(mean[:, part]).argmax(0).to(out.dtype)
                if watch is not None:
                    watch.take(mean[:, part].clamp_min(torch.finfo(torch.float32).tiny).log(), place)
        return values_from_classes(out, values)[None]


def add_probabilities(total: torch.Tensor, run: Segmenter, data: Mapping[str, Any], box: Box) -> None:
    """Add a run's class probabilities in a box of the scan's grid to ``total`` (C, *box); certain background where the
    run's grid does not reach.

    Args:
        total: float32, on the CPU.
        run: a single run.
        data: the scan as that run preprocesses it.
        box: first voxel and end along each axis of the scan's grid.
    """
    image = data["image"]
    _, native_affine = native_grid(image)
    part = model_box(image.shape[1:], np.asarray(image.affine), native_affine, box)
    seen = torch.zeros(total.shape[1:], dtype=torch.bool)
    if part is not None:
        scores = run.scores_in(image, part)

        def take(values: torch.Tensor, where: tuple[slice, ...], inside: torch.Tensor | None) -> None:
            for chunk, place in chunks(where):
                probabilities = run.inferer.log_probabilities(values[:, chunk]).exp_()
                reached = torch.ones(probabilities.shape[1:], dtype=torch.bool) if inside is None else inside[chunk]
                total[(slice(None), *place)] += probabilities * reached
                seen[place] = reached

        size = tuple(end - begin for begin, end in box)
        labels_on_grid(scores, shifted(image.affine, part), size, shifted(native_affine, box), watch=take)
    total[0] += ~seen


def segmenter_of(
    run: str | Path,
    others: Sequence[str | Path] = (),
    stage: str = "inference",
    *,
    device: str = "auto",
    settings: Sequence[str] = (),
    uncorrected: bool = False,
    trust: bool = False,
) -> Segmenter:
    """A run's Segmenter, or that of its ensemble with others."""
    options: dict[str, Any] = {"device": device, "settings": settings, "uncorrected": uncorrected, "trust": trust}
    return EnsembleSegmenter([run, *others], stage, **options) if others else Segmenter(run, stage, **options)


def members_of(segmenter: Segmenter) -> list[Segmenter]:
    """The runs of an ensemble, or the one run."""
    return list(segmenter.members) if isinstance(segmenter, EnsembleSegmenter) else [segmenter]


def _same_preprocessing(first: Segmenter, second: Segmenter) -> bool:
    """Whether nothing that the preprocessing may look at differs between two runs' configurations."""
    a, b = ({k: v for k, v in run.config.items() if k not in _UNREAD} for run in (first, second))
    return a == b
